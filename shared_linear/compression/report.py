"""What sharing did to the layers of a model, as a table."""
from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class LayerReport:

    """One layer.

    Attributes:
        path (str): Where it is in the model.
        in_size (int): Width of its inputs.
        out_size (int): Width of its outputs.
        n_tiles (int): Number of tiles; 1 for a layer that stayed dense.
        dense_parameters (int): Weights and biases before.
        parameters (int): Weights and biases now.
        error (float): :math:`E|y - y'|^2` of its outputs y before and y' now,
            in units of the variance of y, on inputs that were held out; if
            none were, on those that it was fitted to. Not a number where it
            was not measured, since the layer stayed as it was.
        order (str): Where the choice of its inputs is: ``'kept'`` in the
            layer, ``'in /l1'`` in the rows of another, or nowhere.
        n_blocks (int): Number of blocks of the outputs that share the weight.
        rank (int): Rank, or ``None`` where the weight has no factors.
        inputs (int): Width of its inputs now: less where hidden units were
            left out.
        outputs (int): Width of its outputs now.
        rows (float): How often it is applied for one input of the model.
        note (str): Why it stayed as it was, if it could not be changed.

    """

    path: str
    in_size: int
    out_size: int
    n_tiles: int
    dense_parameters: int
    parameters: int
    error: float
    order: str = ''
    n_blocks: int = 1
    rank: int | None = None
    inputs: int | None = None
    outputs: int | None = None
    rows: float = 1.
    note: str = ''

    @property
    def dense_flops(self) -> int:
        """Floating-point operations per input of the layer before."""
        return 2 * self.in_size * self.out_size

    @property
    def flops(self) -> int:
        """Floating-point operations per input of the layer now."""
        in_size = self.in_size if self.inputs is None else self.inputs
        out_size = self.out_size if self.outputs is None else self.outputs
        width = in_size // self.n_tiles
        weights = (
            width * out_size if self.rank is None
            else self.rank * (width + out_size))
        return 2 * weights + self.n_blocks * (in_size - width)


@dataclasses.dataclass(frozen=True)
class Report:

    """All fully connected layers of a model, and the model as a whole.

    Attributes:
        layers (list of LayerReport): In the order in which they are called.
        dense_parameters (int): Parameters of the model before, those of its
            other links with them.
        parameters (int): Parameters of the model now.
        error (float): :math:`E|y - y'|^2` of the outputs y and y' of the
            whole model before and now, in units of the variance of y, on the
            same inputs. Not a number where the model gives none.
        cosine (float): Mean cosine of the outputs before and now.
        n_held_out (int): Number of inputs that were held out: 0 after
            :func:`share_weights` of fewer than 20.
        dense_bytes (int): Bytes of the parameters before.
        bytes (int): Bytes of the parameters now, and of the orders of inputs
            that are kept.
        unreachable (int): Parameters that are of no layer that could be
            compressed, as those of embeddings.
        n_bits (int): Bits of a weight, if the model was quantized.
        memory (int): Bytes that it was to take.

    """

    layers: list[LayerReport]
    dense_parameters: int
    parameters: int
    error: float = math.nan
    cosine: float = math.nan
    n_held_out: int = 0
    dense_bytes: int = 0
    bytes: int = 0
    unreachable: int = 0
    n_bits: int | None = None
    memory: int = 0

    @property
    def compression(self) -> float:
        """How many times fewer parameters the model has now."""
        return self.dense_parameters / self.parameters

    @property
    def dense_flops(self) -> int:
        """Operations of the fully connected layers before, per input."""
        return round(sum(
            layer.dense_flops * layer.rows for layer in self.layers))

    @property
    def flops(self) -> int:
        """Operations of the fully connected layers now, per input."""
        return round(sum(layer.flops * layer.rows for layer in self.layers))

    def __str__(self) -> str:
        columns = [
            ('layer', [layer.path for layer in self.layers], 'model'),
            ('n', [str(layer.n_tiles) for layer in self.layers], ''),
            ('k', [str(layer.n_blocks) for layer in self.layers], ''),
            ('rank', ['' if layer.rank is None else str(layer.rank)
                      for layer in self.layers], ''),
            ('in', [_change(layer.in_size, layer.inputs)
                    for layer in self.layers], ''),
            ('out', [_change(layer.out_size, layer.outputs)
                     for layer in self.layers], ''),
            ('parameters', ['{:,}'.format(layer.dense_parameters)
                            for layer in self.layers],
             '{:,}'.format(self.dense_parameters)),
            ('', ['-> {:,}'.format(layer.parameters)
                  for layer in self.layers],
             '-> {:,}'.format(self.parameters)),
            ('FLOPs', ['{:,}'.format(layer.dense_flops)
                       for layer in self.layers],
             '{:,}'.format(self.dense_flops)),
            ('', ['-> {:,}'.format(layer.flops) for layer in self.layers],
             '-> {:,}'.format(self.flops)),
            ('error', ['' if math.isnan(layer.error)
                       else '{:.2%}'.format(layer.error)
                       for layer in self.layers],
             '' if math.isnan(self.error) else '{:.2%}'.format(self.error)),
            ('order', [layer.order or layer.note for layer in self.layers],
             ''),
        ]
        unused = {'k'} if all(
            layer.n_blocks == 1 for layer in self.layers) else set()
        if all(layer.rank is None for layer in self.layers):
            unused.add('rank')
        columns = [column for column in columns if column[0] not in unused]
        rows = [tuple(name for name, _, _ in columns)]
        rows += zip(*(cells for _, cells, _ in columns), strict=True)
        rows.append(tuple(whole for _, _, whole in columns))
        left = 0, len(rows[0]) - 1
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [
                cell.ljust(width) if i in left else cell.rjust(width)
                for i, (cell, width) in enumerate(
                    zip(row, widths, strict=True))]
            lines.append('  '.join(cells).rstrip())
        rule = '-' * max(map(len, lines))
        lines[1:1] = [rule]
        lines[-1:-1] = [rule]
        lines.append('{:.1f} times fewer parameters, {:.1f} times fewer FLOPs '
                     'in these layers'.format(
                         self.compression, self.dense_flops / self.flops))
        if math.isnan(self.error):
            lines.append('the model gives no numbers to compare')
        else:
            lines.append(
                'on {}: error {:.2%} of the variance of the outputs, mean '
                'cosine {:.4f}'.format(
                    '{:,} held out'.format(self.n_held_out)
                    if self.n_held_out else 'what was fitted to',
                    self.error, self.cosine))
        if self.n_bits is not None:
            lines.append(
                'weights and activations of {} bits: {:.1f} times fewer '
                'bytes'.format(self.n_bits, self.dense_bytes / self.bytes))
        if self.unreachable:
            lines.append(
                '{:,} parameters are of no layer that could be '
                'compressed'.format(self.unreachable))
        return '\n'.join(lines)


def _change(before, now):
    if now is None or now == before:
        return str(before)
    return '{} -> {}'.format(before, now)
