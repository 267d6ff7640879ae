# ruff: noqa: RET504 (the seeds' own text)
"""Torch modules as users write them: the seeds' own classes, and some made up for the tests.

The seeds' classes are as they stand there, except where they cannot run at all: `self.self`,
`super()` without `.__init__()`, and `torch.functional` for `torch.nn.functional`.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn
from torch.autograd import Variable

from torch_ref.layers import CenterCrop


class SeedConv2DNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels=3, out_channels=10, kernel_size=5, stride=2, padding=2)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=2)
        self.conv2 = nn.Conv2d(in_channels=10, out_channels=10, kernel_size=2, stride=2, padding=1)
        self.maxpool = nn.MaxPool2d(kernel_size=2)
        self.output = nn.Linear(10, num_classes)

    def forward(self, x):
        out = self.conv1(x)
        out = self.relu(out)
        out = self.maxpool(out)
        out = self.conv2(out)
        out = self.relu(out)
        out = self.maxpool(out)
        out = out.view(out.size(0), -1)
        out = self.output(out)
        return out


class SeedRNN(nn.Module):
    def __init__(self, input_size, hidden_size, num_layers, output_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.rnn = nn.RNN(input_size, hidden_size, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(self, x):
        h0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size).to(x.device)
        out, _ = self.rnn(x, h0)
        out = out[:, -1, :]
        out = self.fc(out)
        return out


class SeedAutoencoder(nn.Module):
    def __init__(self, input_size, reduced_size, encoding_size):
        super().__init__()

        self.relu = nn.ReLU()
        self.encoder_1 = nn.Linear(input_size, reduced_size)
        self.encoder_2 = nn.Linear(reduced_size, encoding_size)
        self.decoder_1 = nn.Linear(encoding_size, reduced_size)
        self.decoder_2 = nn.Linear(reduced_size, input_size)

    def forward(self, x):
        x_reduced = self.relu(self.encoder_1(x))
        encoded = self.encoder_2(x_reduced)
        x_expanded = self.relu(self.decoder_1(encoded))
        decoded = self.decoder_2(x_expanded)
        return decoded


class BrokenAutoencoder(SeedAutoencoder):
    def forward(self, x):
        x_reduced = self.relu(self.encoder_1(x))
        encoded = self.self.encoder_2(x_reduced)
        return self.decoder_2(self.relu(self.decoder_1(encoded)))


class SeedImageAutoencoder(nn.Module):
    def __init__(self, in_shape):
        super().__init__()
        c, h, w = in_shape
        self.encoder = nn.Sequential(
            nn.Linear(c * h * w, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 12),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Linear(12, 64),
            nn.ReLU(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, c * h * w),
            nn.Sigmoid(),
        )

    def forward(self, x):
        bs, c, h, w = x.size()
        x = x.view(bs, -1)
        x = self.encoder(x)
        x = self.decoder(x)
        x = x.view(bs, c, h, w)
        return x


class SeedGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(200, 32 * 8, 4, 1, 0, bias=False),
            nn.BatchNorm2d(32 * 8),
            nn.ReLU(),
            nn.ConvTranspose2d(32 * 8, 32 * 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32 * 4),
            nn.ReLU(),
            nn.ConvTranspose2d(32 * 4, 32 * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32 * 2),
            nn.ReLU(),
            nn.ConvTranspose2d(32 * 2, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, tens):
        return self.net(tens)


class SeedDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 32 * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32 * 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32 * 2, 32 * 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32 * 4),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32 * 4, 32 * 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32 * 8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32 * 8, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, tens):
        return self.net(tens)


class SeedMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(in_features=28 * 28, out_features=500)
        self.fc2 = nn.Linear(in_features=500, out_features=200)
        self.fc3 = nn.Linear(in_features=200, out_features=100)
        self.out = nn.Linear(in_features=100, out_features=10)

    def forward(self, t):
        t = t.view(-1, 28 * 28)
        t = self.fc1(t)
        t = F.relu(t)
        t = self.fc2(t)
        t = F.relu(t)
        t = self.fc3(t)
        t = F.relu(t)
        t = self.out(t)
        return t


class SeedCharRNN(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.hid_fc = nn.Linear(185, 128)
        self.out_fc = nn.Linear(185, n_classes)
        self.softmax = nn.LogSoftmax()

    def forward(self, inputs, hidden):
        inputs = inputs.view(1, -1)
        combined = torch.cat([inputs, hidden], dim=1)
        hid_out = self.hid_fc(combined)
        out = self.out_fc(combined)
        out = self.softmax(out)
        return out, hid_out


class SeedVAE(nn.Module):
    def __init__(self, in_shape, n_latent):
        super().__init__()
        self.in_shape = in_shape
        self.n_latent = n_latent
        c, h, w = in_shape
        self.z_dim = h // 2**2
        self.encoder = nn.Sequential(
            nn.BatchNorm2d(c),
            nn.Conv2d(c, 32, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(),
        )
        self.z_mean = nn.Linear(64 * self.z_dim**2, n_latent)
        self.z_var = nn.Linear(64 * self.z_dim**2, n_latent)
        self.z_develop = nn.Linear(n_latent, 64 * self.z_dim**2)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 32, kernel_size=3, stride=2, padding=0),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, kernel_size=3, stride=2, padding=1),
            CenterCrop(h, w),
            nn.Sigmoid(),
        )

    def sample_z(self, mean, logvar):
        stddev = torch.exp(0.5 * logvar)
        noise = Variable(torch.randn(stddev.size()))
        return (noise * stddev) + mean

    def encode(self, x):
        x = self.encoder(x)
        x = x.view(x.size(0), -1)
        mean = self.z_mean(x)
        var = self.z_var(x)
        return mean, var

    def decode(self, z):
        out = self.z_develop(z)
        out = out.view(z.size(0), 64, self.z_dim, self.z_dim)
        out = self.decoder(out)
        return out

    def forward(self, x):
        mean, logvar = self.encode(x)
        z = self.sample_z(mean, logvar)
        out = self.decode(z)
        return out, mean, logvar


class SeedMyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(100, 200)
        self.activation = nn.ReLU()
        self.linear2 = nn.Linear(200, 10)
        self.softmax = nn.Softmax()

    def forward(self, x):
        x = self.linear1(x)
        x = self.activation(x)
        x = self.linear2(x)
        x = self.softmax(x)
        return x


class SeedLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x

    def num_flat_features(self, x):
        size = x.size()[1:]
        num_features = 1
        for s in size:
            num_features *= s
        return num_features


class SeedLSTMTagger(nn.Module):
    def __init__(self, embedding_dim, hidden_dim, vocab_size, tagset_size):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.word_embeddings = nn.Embedding(vocab_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim)
        self.hidden2tag = nn.Linear(hidden_dim, tagset_size)

    def forward(self, sentence):
        embeds = self.word_embeddings(sentence)
        lstm_out, _ = self.lstm(embeds.view(len(sentence), 1, -1))
        tag_space = self.hidden2tag(lstm_out.view(len(sentence), -1))
        tag_scores = F.log_softmax(tag_space, dim=1)
        return tag_scores


class BasicBlock(nn.Module):
    """Two convolutions and a way around them, as in residual networks."""

    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Residual blocks, two of one shape, and the mean over all pixels."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 6, stride=2), BasicBlock(6, 6))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x):
        x = self.layer2(self.layer1(self.stem(x)))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)


class Inception(nn.Module):
    """Branches of different windows, beside each other as channels."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleDict(
            {
                "one": nn.Conv2d(3, 2, 1),
                "three": nn.Conv2d(3, 4, 3, padding=1),
                "pool": nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 2, 1)),
            }
        )
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.ModuleList([nn.Linear(8, 5), nn.Linear(5, 3)])

    def forward(self, x):
        outputs = [branch(x) for branch in self.branches.values()]
        y = torch.cat(outputs, dim=1) * self.scale
        y = F.gelu(self.norm(y))
        gate, value = y.softmax(dim=1), torch.sigmoid(y)
        pooled = (gate * value).sum(dim=(2, 3)) / (y.shape[2] * y.shape[3])
        for layer in self.head:
            pooled = layer(pooled)
        return pooled, y.amax(1)


class Shared(nn.Module):
    """One layer three times, a bare weight, a buffer, a counter, and a table that is not saved."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.layer = nn.Linear(6, 6)
        self.again = self.layer
        self.offset = nn.Parameter(torch.randn(6))
        self.register_buffer("scale", torch.rand(6) + 0.5)
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("table", torch.rand(7, 6), persistent=False)
        self.decoder = nn.Linear(6, 9, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens) + self.table[: tokens.shape[1]]
        for _ in range(2):
            x = torch.tanh(self.layer(x) + self.offset) * self.scale
        x = self.again(x) / self.steps
        return self.decoder(x)


class Functional(nn.Module):
    """No layers but functions, some of them in training only."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 2, 3, 3) / 4)
        self.bias = nn.Parameter(torch.randn(4))
        self.weight = nn.Parameter(torch.randn(5, 64) / 8)

    def forward(self, image):
        x = F.pad(image, (1, 1, 2, 0), value=0.5)
        x = F.conv2d(x, self.kernel, self.bias, padding=1)
        x = F.leaky_relu(x, 0.2)
        x = F.dropout(x, 0.3, training=self.training)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.avg_pool2d(x, 2)
        x = F.adaptive_max_pool2d(x, (4, 4))
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        x = x.flatten(1)
        x = F.layer_norm(x, (64,)).clamp(-1.5, 1.5)
        return F.log_softmax(F.linear(x, self.weight), dim=-1)


class HandAttention(nn.Module):
    """Attention written out, under a causal mask and one of padding."""

    def __init__(self, size=8, heads=2):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)
        self.dropout = nn.Dropout(0.2)
        self.register_buffer("causal", torch.tril(torch.ones(16, 16)).bool())

    def forward(self, x, present):
        b, t, c = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        k = k.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        v = v.view(b, t, self.heads, c // self.heads).permute(0, 2, 1, 3)
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * (c // self.heads) ** -0.5
        scores = scores.masked_fill(~self.causal[:t, :t], torch.finfo(x.dtype).min)
        scores = scores.masked_fill((present == 0)[:, None, None], -1e9)
        weights = self.dropout(scores.softmax(-1))
        y = (weights @ v).transpose(1, 2).contiguous().view(b, t, c)
        return self.proj(y), weights


class Undecided(nn.Module):
    """What Python decides by the values of tensors, in two places."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        if x.sum() > 0:
            x = self.linear(x)
        scale = x.max().item()
        return x * scale
