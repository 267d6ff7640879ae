"""An LSTM tags the words of sentences, as a PyTorch user writes it."""

import torch
from torch import nn

SENTENCES = [
    ("the dog ate the apple", "DET NOUN VERB DET NOUN"),
    ("everybody read that book", "PRON VERB DET NOUN"),
    ("a small bird sings", "DET ADJ NOUN VERB"),
    ("she sees the old house", "PRON VERB DET ADJ NOUN"),
    ("he runs", "PRON VERB"),
    ("the red car stops", "DET ADJ NOUN VERB"),
    ("that child reads a long story", "DET NOUN VERB DET ADJ NOUN"),
    ("they eat", "PRON VERB"),
]


class LSTMTagger(nn.Module):
    def __init__(self, embedding_dim, hidden_dim, vocab_size, tagset_size):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim, batch_first=True)
        self.hidden2tag = nn.Linear(hidden_dim, tagset_size)

    def forward(self, sentence):
        x, _ = self.lstm(self.word_embeddings(sentence))
        return torch.log_softmax(self.hidden2tag(x), -1)


def main(steps=20):
    """The losses of some steps."""
    torch.manual_seed(0)
    pairs = [(words.split(), tags.split()) for words, tags in SENTENCES]
    words = {word: i for i, word in enumerate(sorted({w for ws, _ in pairs for w in ws}))}
    tags = {tag: i for i, tag in enumerate(sorted({t for _, ts in pairs for t in ts}))}

    model = LSTMTagger(32, 32, len(words), len(tags))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    criterion = nn.NLLLoss()

    losses = []
    for step in range(steps):
        sentence, target = pairs[step % len(pairs)]
        x = torch.tensor([[words[word] for word in sentence]])
        y = torch.tensor([tags[tag] for tag in target])
        optimizer.zero_grad()
        loss = criterion(model(x)[0], y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    with torch.no_grad():
        x = torch.tensor([[words[word] for word in ["the", "old", "dog", "reads"]]])
        names = sorted(tags)
        print([names[i] for i in model(x)[0].argmax(-1)], f"loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main()
