"""What sharing did to the layers of a model, as a table."""
from __future__ import annotations

import dataclasses


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
            on the calibration inputs, in units of the variance of y. Not a
            number where it was not measured, since the layer stayed as it
            was.
        order (str): Where the choice of its inputs is: ``'kept'`` in the
            layer, ``'in /l1'`` in the rows of another, or nowhere.
        n_blocks (int): Number of blocks of the outputs that share the weight.

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

    @property
    def dense_flops(self) -> int:
        """Floating-point operations per input of the layer before."""
        return 2 * self.in_size * self.out_size

    @property
    def flops(self) -> int:
        """Floating-point operations per input of the layer now."""
        width = self.in_size // self.n_tiles
        return (2 * width * self.out_size
                + self.n_blocks * (self.in_size - width))


@dataclasses.dataclass(frozen=True)
class Report:

    """All fully connected layers of a model, and the model as a whole.

    Attributes:
        layers (list of LayerReport): In the order in which they are called.
        dense_parameters (int): Parameters of the model before, those of its
            other links with them.
        parameters (int): Parameters of the model now.

    """

    layers: list[LayerReport]
    dense_parameters: int
    parameters: int

    @property
    def compression(self) -> float:
        """How many times fewer parameters the model has now."""
        return self.dense_parameters / self.parameters

    @property
    def dense_flops(self) -> int:
        """Operations of the fully connected layers before."""
        return sum(layer.dense_flops for layer in self.layers)

    @property
    def flops(self) -> int:
        """Operations of the fully connected layers now."""
        return sum(layer.flops for layer in self.layers)

    def __str__(self) -> str:
        blocks = any(layer.n_blocks > 1 for layer in self.layers)
        rows: list[tuple[str, ...]]
        rows = [('layer', 'n', 'k', 'in', 'out', 'parameters', '', 'FLOPs', '',
                 'error', 'order')]
        rows += [
            (layer.path, str(layer.n_tiles), str(layer.n_blocks),
             str(layer.in_size), str(layer.out_size),
             '{:,}'.format(layer.dense_parameters),
             '-> {:,}'.format(layer.parameters),
             '{:,}'.format(layer.dense_flops),
             '-> {:,}'.format(layer.flops),
             '' if layer.error != layer.error else '{:.2%}'.format(
                 layer.error),
             layer.order)
            for layer in self.layers]
        rows.append((
            'model', '', '', '', '', '{:,}'.format(self.dense_parameters),
            '-> {:,}'.format(self.parameters),
            '{:,}'.format(self.dense_flops), '-> {:,}'.format(self.flops),
            '', ''))
        if not blocks:
            rows = [row[:2] + row[3:] for row in rows]
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
        return '\n'.join(lines)
