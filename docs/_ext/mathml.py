"""Formulas as MathML, which browsers draw themselves: no script is loaded from elsewhere."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer; ``html_math_renderer`` picks it up as the only one."""
    app.add_html_math_renderer('mathml', (_inline, None), (_block, None))
    app.connect('config-inited', _choose)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}


def _choose(_app: Any, config: Any) -> None:
    config.html_math_renderer = 'mathml'
