"""Whether a reference says nothing: such a reference is an error for every grader that compares with one."""

import unicodedata


def is_blank(text: str) -> bool:
    """Nothing but white space, marks without width and control characters."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)
