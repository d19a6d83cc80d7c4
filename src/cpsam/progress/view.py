"""A part of a terminal or of a notebook that is drawn again while work goes on."""

import io
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live

from cpsam.progress.terminal import Terminal

REDRAWS_PER_SECOND = 2
PAGE = '<pre style="line-height: 1.3">{code}</pre>'


class Drawn:
    """Shows its view inside a `with` block."""

    view: "View"

    def __enter__(self) -> Self:
        self.view.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.view.__exit__(kind, error, trace)


class View:
    """Shows what `draw` returns, and removes it at the end.

    It shows nothing where the console is neither a terminal nor a notebook. rich's own view needs
    ipywidgets in a notebook; this one needs IPython alone.

    Args:
        console: Where to draw.
        draw: Returns what to show at the moment.
    """

    def __init__(self, console: Terminal, draw: Callable[[], RenderableType]) -> None:
        self.console, self.draw = console, draw
        self.visible = console.is_terminal or console.is_jupyter
        self.live = Live(
            get_renderable=draw,
            console=console,
            transient=True,
            refresh_per_second=REDRAWS_PER_SECOND,
        )
        self.cell: Any = None
        self.drawn = 0.0

    def __enter__(self) -> Self:
        if self.console.is_jupyter:
            from IPython.display import HTML, display  # pyrefly: ignore

            self.cell = display(HTML(""), display_id=True)
        elif self.visible:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.live.stop()
        self.write_cell("")

    def update(self) -> None:
        """Draws again in a notebook; a terminal is drawn again by a thread of rich."""
        if self.cell is not None and time.monotonic() - self.drawn >= 1 / REDRAWS_PER_SECOND:
            self.drawn = time.monotonic()
            self.write_cell(to_html(self.draw()))

    def write_cell(self, text: str) -> None:
        if self.cell is not None:
            from IPython.display import HTML  # pyrefly: ignore

            self.cell.update(HTML(text))


def to_html(drawing: RenderableType) -> str:
    """Returns a drawing as preformatted text of a web page."""
    console = Console(record=True, file=io.StringIO(), width=100, force_jupyter=False)
    console.print(drawing)
    return console.export_html(inline_styles=True, code_format=PAGE)
