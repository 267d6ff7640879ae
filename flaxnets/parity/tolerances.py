"""Every bound that parity is judged by, and why it is what it is."""

# The two sides compute the same real function; in float64 they part by rounding, 1e-16 to
# 1e-14 of the largest magnitude. A wrong epsilon (1e-6 for 1e-5) or a tanh GELU moves
# results by 1e-6 and more; 1e-10 lies far from both.
FLOAT64 = 1e-10

# A gradient that is zero in exact arithmetic (of a bias in front of a normalisation, of a key's
# bias) is rounding noise, 1e-17 where others are 1. Gradients, and what optimizers make of them,
# are judged against at least this share of the largest.
SMALLEST = 1e-4

# In low precision Flax may be this many times as far from the float64 truth as torch is. In
# float32 each adds a product's terms in an order of its own. Of 3,136 terms XLA's sum was off by
# 9.8e-7, torch's by 2.9e-7, one in order by 1.7e-6; and torch's kernel, hence its error, is
# another on other processors: for one network the ratio was 2.5 with MKL's own choice and 1.6 with
# its oldest kernel (MKL_CBWR=COMPATIBLE). In bfloat16 sums are float32 on both sides, and what is
# rounded in between is the same: less than 2.
RATIO = {"float32": 4.0, "bfloat16": 2.0}

# Where torch happens to be exact, a few units in the last place remain; in float32 4.6 were
# measured, in the gradient of a convolution's kernel.
FLOOR = {"float32": 8, "bfloat16": 4}

# The gradient of a bias, or of a scale, is a sum over batch and pixels: 4,096 terms of a small
# feature map. XLA adds them up in order on a CPU, torch pairwise; 13 units were measured. Lower
# precision is far off: TF32 shows as 4,000 units, bfloat16 as 30,000.
LONG_SUM = 16

# Weights cross as they are, bit by bit, and a step's program is right or wrong.
EXACT = 0.0

# Initial weights are samples. With the Kolmogorov-Smirnov distance of two samples of n and m
# numbers, chance alone exceeds 2.69 sqrt(1/n + 1/m) once in a million comparisons:
# sqrt(-ln(1e-6 / 2) / 2) = 2.69.
KOLMOGOROV_SMIRNOV = 2.69
