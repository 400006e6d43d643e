#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes daemon/text/unicode_new.c: code points that Unicode 15 and 16 added to the categories the
split regexes use.  PCRE2 10.42 knows Unicode 14 (as does Python 3.11's unicodedata, the base of the
comparison); the `tokenizers` package, the reference for tokenizer.json, knows Unicode 16.

usage: unicode_new.py > daemon/text/unicode_new.c   (Python 3.11 with tokenizers 0.23.3)
"""
import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "needs Python 3.11"
CATEGORIES = ["L", "Lu", "Ll", "Lm", "Lo", "M", "N", "Nd", "P", "S"]
POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def members(category):
    split = pre_tokenizers.Split(Regex(r"\p{%s}" % category), "removed")
    found = set(POINTS)
    for base in range(0, len(POINTS), 4096):
        text = "".join(map(chr, POINTS[base:base + 4096]))
        for _, (start, end) in split.pre_tokenize_str(text):
            found.difference_update(map(ord, text[start:end]))
    return found


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


print("""/* SPDX-License-Identifier: Apache-2.0
 * Written by tests/data/tokenizers/unicode_new.py: what Unicode 15 and 16 added, by category, as
 * PCRE2 class members.  PCRE2 10.42 stops at Unicode 14; the reference tokenizers know 16.  A newer
 * PCRE2 makes these entries redundant, never wrong. */
#include <stddef.h>
#include <string.h>

#include "daemon/text/regex.h"

static const struct {
    const char *category;
    const char *members;
} new_points[] = {""")
for category in CATEGORIES:
    old = {c for c in POINTS if unicodedata.category(chr(c)).startswith(category)}
    new = members(category)
    assert not old - new, category
    lines, line = [], ""
    for a, b in ranges(new - old):
        item = f"\\\\x{{{a:x}}}" if a == b else f"\\\\x{{{a:x}}}-\\\\x{{{b:x}}}"
        if len(line) + len(item) > 82:
            lines.append(line)
            line = ""
        line += item
    lines.append(line)
    body = "\n     ".join(f'"{x}"' for x in lines)
    print(f'    {{"{category}",\n     {body}}},')
print("""};

const char *phx_unicode_new(const char *category, size_t size)
{
    for (size_t i = 0; i < sizeof new_points / sizeof new_points[0]; i++) {
        const char *name = new_points[i].category;
        if (strlen(name) == size && memcmp(name, category, size) == 0)
            return new_points[i].members;
    }
    return NULL;
}""")
sys.stdout.flush()
