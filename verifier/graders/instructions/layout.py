"""Constraints of grader `instructions` on what a response contains and how it is laid out."""

import re

import msgspec

from verifier.graders.instructions.text import Constraint, Count, Positive, Relation, Text, Texts, compare, folded
from verifier.graders.strict_json import NotJson, read_json

PLACEHOLDER = re.compile(r"\[([^\[\]\n]+)\]")
EMPHASIS = re.compile(r"(?<![\\*])(\*{1,3})(?![\s*])((?:\\.|[^*\n\\])+)(?<![\s\\])\1(?!\*)")
NUMBERED = re.compile(r"\d{1,9}[.)]\s+\S")
MARKDOWN_BEFORE = '#*_>" \t'  # what may stand before the first letter of a line


ONE_BLOCK = re.compile(r"\A```(?:json)?\s*+(.*?)```\Z", re.DOTALL | re.IGNORECASE)
COUNTED = (
    r"(?:(\d{1,9})|([IVXLC]{2,7}|[IVX])(?![A-Za-z'\u2019])|([A-Z])(?![A-Za-z'\u2019])"
    r"|((?i:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve))(?![A-Za-z]))"
)
"""What numbers a section: digits, Roman numerals, a capital letter, or a word."""
AROUND_SECTIONS = MARKDOWN_BEFORE + "-[(\u2022\u2013\u2014=~|<+\u201c"


class NumberPlaceholders(Constraint, frozen=True, tag="detectable_content:number_placeholders"):
    """The number of placeholders in square brackets, such as [address]."""

    num_placeholders: Count
    relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        count = sum(bool(found[1].strip()) for found in PLACEHOLDER.finditer(text))
        return compare(count, self.relation, self.num_placeholders, "placeholders")


class Postscript(Constraint, frozen=True, tag="detectable_content:postscript"):
    """A line begins with the marker, in any case and spacing, and text follows it."""

    postscript_marker: Text = "P.S."

    def unmet(self, text: str) -> str | None:
        marker = "".join(self.postscript_marker.split()).casefold()
        lines = text.splitlines()
        for number, line in enumerate(lines):
            spelled = "".join(line.lstrip(MARKDOWN_BEFORE).split()).casefold()
            # The whole text has no white space around it: a line that is not the last has text after it.
            if spelled.startswith(marker) and (spelled.removeprefix(marker).strip(".:*_-") or number + 1 < len(lines)):
                return None
        return f"no postscript {self.postscript_marker!r:.60}"


class NumberBulletLists(Constraint, frozen=True, tag="detectable_format:number_bullet_lists"):
    """The number of bullet points: lines that begin with *, -, + or • and a space, followed by text."""

    num_bullets: Count
    relation: Relation = "exactly"

    def unmet(self, text: str) -> str | None:
        lines = (line.lstrip() for line in text.splitlines())
        count = sum(line[:1] in set("*-+•") and line[1:2].isspace() and bool(line.strip("*-+• \t")) for line in lines)
        return compare(count, self.relation, self.num_bullets, "bullet points")


class NumberedList(Constraint, frozen=True, tag="detectable_format:numbered_list"):
    """The number of lines that begin with a number and a full stop or bracket: `1. text`. Not in IFEval."""

    num_points: Count
    relation: Relation = "exactly"

    def unmet(self, text: str) -> str | None:
        count = sum(bool(NUMBERED.match(line.lstrip())) for line in text.splitlines())
        return compare(count, self.relation, self.num_points, "numbered points")


class ConstrainedResponse(Constraint, frozen=True, tag="detectable_format:constrained_response"):
    """Exactly one of the options occurs, as it is written."""

    options: Texts = msgspec.field(
        default_factory=lambda: ["My answer is yes.", "My answer is no.", "My answer is maybe."]
    )

    def unmet(self, text: str) -> str | None:
        found = [option for option in self.options if option.strip() in text]
        # "yes" occurs within "yes, but" too: only the longest option says what was chosen.
        chosen = [one for one in found if not any(one != other and one in other for other in found)]
        return None if len(chosen) == 1 else f"{len(chosen)} of the options, not one"


class NumberHighlightedSections(Constraint, frozen=True, tag="detectable_format:number_highlighted_sections"):
    """The number of passages within one line between asterisks, *like this* or **like this**."""

    num_highlights: Count
    relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        count = sum(not _multiplies(text, found) for found in EMPHASIS.finditer(text))
        return compare(count, self.relation, self.num_highlights, "highlighted passages")


class MultipleSections(Constraint, frozen=True, tag="detectable_format:multiple_sections"):
    """The number of sections: lines that begin with the splitter and a number, a Roman numeral or a letter, such as
    `Section 1`, perhaps in brackets or behind a mark; repeats count once."""

    section_spliter: Text  # IFEval's spelling
    num_sections: Positive
    relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        heading = re.compile(rf"{re.escape(self.section_spliter.strip())}[\s:#.-]{{0,3}}{COUNTED}")
        found = (heading.match(line.lstrip(AROUND_SECTIONS)) for line in text.splitlines())
        numbers = {match[match.lastindex].lower().lstrip("0") for match in found if match and match.lastindex}
        return compare(len(numbers), self.relation, self.num_sections, "sections")


class JsonFormat(Constraint, frozen=True, tag="detectable_format:json_format"):
    """The whole response is one JSON object or array, read strictly; ``` around it are allowed."""

    def unmet(self, text: str) -> str | None:
        block = ONE_BLOCK.match(text)  # a second block within it would not be JSON
        try:
            value = read_json(block[1] if block else text)
        except NotJson as fault:
            return str(fault)
        return None if isinstance(value, dict | list) else "neither an object nor an array"


class Title(Constraint, frozen=True, tag="detectable_format:title"):
    """A title in double angular brackets within one line, such as <<poem of joy>>."""

    def unmet(self, text: str) -> str | None:
        for line in text.splitlines():
            start, end = line.find("<<"), line.rfind(">>")
            if 0 <= start < end and line[start:end].strip("<> \t"):
                return None
        return "no <<title>>"


class TwoResponses(Constraint, frozen=True, tag="combination:two_responses"):
    """Two different responses with ****** between them, and no third part."""

    def unmet(self, text: str) -> str | None:
        parts = [part.strip() for part in text.split("******")]
        # A divider at the very beginning or end separates nothing.
        parts = parts[not parts[0] : len(parts) - (not parts[-1])]
        if len(parts) != 2 or not all(parts):
            return f"{len([part for part in parts if part])} responses, not two"
        return "two equal responses" if parts[0] == parts[1] else None


class RepeatPrompt(Constraint, frozen=True, tag="combination:repeat_prompt"):
    """The response begins with a text word for word, in any case and spacing, and goes on after it."""

    prompt_to_repeat: Text

    def unmet(self, text: str) -> str | None:
        repeated, spelled = (" ".join(folded(part).split()) for part in (self.prompt_to_repeat, text))
        if not spelled.startswith(repeated):
            return "does not repeat the request first"
        return None if spelled != repeated else "nothing after the repeated request"


class StartChecker(Constraint, frozen=True, tag="startend:start_checker"):
    """The response begins with the phrase, in any case, after quotation marks at most. Not in IFEval."""

    start_phrase: Text

    def unmet(self, text: str) -> str | None:
        held = folded(text).lstrip('" ').startswith(folded(self.start_phrase.strip()))
        return None if held else "begins otherwise"


class EndChecker(Constraint, frozen=True, tag="startend:end_checker"):
    """The response ends with the phrase, in any case, before quotation marks at most."""

    end_phrase: Text

    def unmet(self, text: str) -> str | None:
        held = folded(text).rstrip('" ').endswith(folded(self.end_phrase.strip()).rstrip('" '))
        return None if held else "ends otherwise"


class Quotation(Constraint, frozen=True, tag="startend:quotation"):
    """The whole response stands between double quotation marks."""

    def unmet(self, text: str) -> str | None:
        held = len(text) > 2 and text[0] == text[-1] == '"' and text[1:-1].strip()
        return None if held else "not within quotation marks"


def _multiplies(text: str, found: re.Match[str]) -> bool:
    """Whether stars stand between letters or digits on both sides, as in 2*3*4, which is a product."""
    around = text[found.start() - 1 : found.start()] + text[found.end() : found.end() + 1]
    return len(around) == 2 and around.isascii() and around.isalnum()


LayoutConstraint = (
    NumberPlaceholders
    | Postscript
    | NumberBulletLists
    | NumberedList
    | ConstrainedResponse
    | NumberHighlightedSections
    | MultipleSections
    | JsonFormat
    | Title
    | TwoResponses
    | RepeatPrompt
    | StartChecker
    | EndChecker
    | Quotation
)
