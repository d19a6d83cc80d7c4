"""Names that would act on a terminal, a page, a Markdown viewer or a spreadsheet."""

import re

NAMES = [
    "[/x]",
    "[red]",
    "[link=http://evil]x[/link]",
    ":smile:",
    "\x1b]0;title\x07",
    "\x1b[31mred\x1b[0m",
    "\x9b31mred",
    "a\rb",
    "a\x08\x08\x08b",
    "a\nb",
    "a\u2028b\x85c",
    "a\u202eb\u2066c",
    "a\u200bb\ufeffc",
    "caf\udce9",
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|'x'!A0",
    "@SUM(1)",
    "\t=1+1",
    " =1+1",
    "a;=1+1",
    "\uff1d1+1",
    "-0.5",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "# H1",
    "## a ##",
    "- - -",
    "1. a",
    "2) a",
    "+ a",
    "===",
    "***",
    "~~~",
    "> a",
    "    code",
    "![](http://evil/x.png)",
    "[a](javascript:alert(1))",
    "[1](http://evil)",
    "[1]: http://evil",
    "http://evil/x www.evil.com <http://evil> a@evil.com",
    "a|b\\|c",
    "`code`",
    "```",
    "*a* __b__ _c_ ~~d~~ __a_ _",
    "&lt;b&gt; &amp; &#60;",
    '" onload="x',
    "{{ 7*7 }} ${x} %s {0}",
]


ACTS = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\u200b]|[\ud800-\udfff]"
)
