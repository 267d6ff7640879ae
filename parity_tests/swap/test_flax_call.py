"""JAX functions inside torch: values and gradients of both, and torch's own rules of the graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets import layers, swap
from flaxnets.swap.flax_call import Call


def test_loss():
    """A JAX loss in a torch script: value and gradient are those of torch's own loss."""
    loss = swap.flax_function(layers.cross_entropy)
    scores = torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 1, 0], dtype=torch.int32)
    found = loss(scores, labels)
    found.backward()
    ours, scores.grad = scores.grad, None
    wanted = F.cross_entropy(scores, labels.long())
    wanted.backward()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(ours, scores.grad)


def _function(x, weights, *, scale, power=1):
    product = jnp.tanh(x @ weights["w"]) ** power * scale
    return {"y": product, "best": product.argmax(-1), "both": (product.sum(), weights["b"] * 2)}


def test_pytrees_and_orders():
    """First and second derivatives of several inputs and outputs equal finite differences."""
    function = swap.flax_function(_function)
    x, w, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (4, 2), 2))

    def flat(x, w, b):
        found = function(x, {"w": w, "b": b}, scale=0.5, power=2)
        assert found["best"].dtype == torch.int64
        assert not found["best"].requires_grad
        return found["y"], *found["both"]

    assert torch.autograd.gradcheck(flat, (x, w, b))
    assert torch.autograd.gradgradcheck(flat, (x, w, b))


def test_compiled_once():
    """Each shape, dtype and constant is traced once."""
    traced = []

    def function(x, power):
        traced.append((x.shape, power))
        return x**power

    called = swap.flax_function(function)
    for _ in range(3):
        for size in (2, 3):
            called(torch.ones(size), 2)
        called(torch.ones(2), 3)
    assert traced == [((2,), 2), ((3,), 2), ((2,), 3)]


def test_nothing_is_held_twice():
    """What the gradient needs of an argument is the argument: its memory is not copied."""
    call = Call(lambda x, y: (jnp.sin(x) @ y, ()), ["x", "y"], "never")
    x, y = jnp.ones((3, 3)), jnp.full((3, 3), 2.0)
    _, _, residuals = call.forward((0, 1), x, y)
    assert 1 in residuals.places
    assert len(residuals.kept) == 2  # the sine, and its derivative
    assert residuals.vjp((x, y))([jnp.ones((3, 3))])[1].shape == (3, 3)


def test_torch_frees_what_jax_kept():
    """A graph that was gone through is freed, and says so like torch's own."""
    x = torch.ones(3, requires_grad=True)
    y = swap.flax_function(jnp.exp)(x)
    holder = y.grad_fn.saved_tensors[-1]
    assert holder.residuals.kept
    del holder
    y.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_kept_graph():
    """With retain_graph the second gradient equals the first."""
    x = torch.ones(3, requires_grad=True)
    y = swap.flax_function(lambda x: jnp.exp(2 * x))(x).sum()
    first, second = (torch.autograd.grad(y, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_argument_written_to():
    """An argument that is written to before its gradient is torch's own error."""
    x, w = torch.ones(3, requires_grad=True), torch.ones(3)
    y = swap.flax_function(lambda x, w: x * w)(x, w)
    w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_output_written_to():
    """Writing to an output changes neither the gradient nor the arguments."""
    x = torch.ones(3, requires_grad=True)
    y = swap.flax_function(lambda x: (jnp.tanh(x), x))(x)
    with torch.no_grad():
        for output in y:
            output.zero_()
    assert torch.equal(x, torch.ones(3))
    y[0].backward(torch.ones(3))
    torch.testing.assert_close(x.grad, torch.full((3,), 1 - np.tanh(1.0) ** 2).float())


def test_no_grad():
    """Without gradients nothing is kept."""
    with torch.no_grad():
        assert swap.flax_function(jnp.exp)(torch.ones(2, requires_grad=True)).grad_fn is None
    assert swap.flax_function(jnp.exp)(torch.ones(2)).grad_fn is None


def test_saved_tensors_packed_away():
    """Where torch packs away what is saved, the gradient is computed from the arguments."""
    x = torch.linspace(0, 1, 3, requires_grad=True)
    function = swap.flax_function(lambda x: jnp.sin(x) ** 2)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(force=True), torch.from_numpy):
        y = function(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.sin(2 * x.detach()))


def test_wrong_argument():
    """An argument that is neither tensor nor constant is named by its type."""
    with pytest.raises(swap.SwapError, match="an argument is a ndarray; give a torch tensor"):
        swap.flax_function(jnp.sin)(np.ones(2))


def test_user_setting_of_x64_stays():
    """Float64 inside torch leaves JAX's setting as it was."""
    assert swap.flax_function(jnp.sin)(torch.ones(2, dtype=torch.float64)).dtype == torch.float64
    assert jax.dtypes.canonicalize_dtype("float64") == "float32"
