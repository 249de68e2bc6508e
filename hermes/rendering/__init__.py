"""wip placeholder"""

from hermes.platform import Capabilities


def render(markdown: str, capabilities: Capabilities, *, suffix_room: int = 0) -> tuple[str, ...]:
    import html

    text = html.escape(markdown, quote=False) if capabilities.dialect == "telegram_html" else markdown
    return tuple(text[i : i + 1000] for i in range(0, len(text), 1000))
