"""Bare code to complete (signature and docstring, no instruction), and snippets to ask about."""

# ruff: noqa: E501 - lists of example sentences read better unbroken
from __future__ import annotations

import random

_NAMES = [
    "count_vowels",
    "is_prime",
    "merge_sorted",
    "remove_duplicates",
    "longest_word",
    "sum_digits",
    "rotate_left",
    "flatten",
    "has_close_elements",
    "max_profit",
    "group_by_parity",
    "to_snake_case",
    "parse_time",
    "encode_run_length",
    "intersection",
    "below_threshold",
    "fib",
    "make_palindrome",
    "rolling_max",
    "truncate",
    "filter_by_prefix",
    "sort_numbers",
    "find_closest",
    "rescale",
    "strlen",
    "largest_divisor",
    "factorize",
    "triangle_area",
    "common",
    "median",
    "modp",
    "decode_shift",
    "monotonic",
    "digits_sum",
    "double_the_difference",
    "valid_date",
    "words_in_sentence",
    "order_by_points",
    "simplify",
    "histogram",
    "match_parens",
    "minimum_cost",
    "next_smallest",
    "any_int",
    "generate_integers",
    "cycle_check",
    "normalize_text",
    "moving_average",
    "top_k",
    "binary_to_decimal",
    "circular_shift",
    "compare_guess",
    "tri_numbers",
    "solve_path",
    "select_words",
    "get_row",
    "odd_count",
    "file_name_check",
]
_WHAT = [
    "the number of vowels in the text",
    "True if any two values are closer than the threshold",
    "the values sorted from smallest to largest",
    "the list without repeated items",
    "the longest word; on a tie the first one",
    "the sum of all even entries",
    "a string in which every word is reversed",
    "the index of the first match, or -1",
    "the n-th number of the sequence",
    "the median of the elements",
    "a dictionary from each character to its count",
    "True when the brackets are balanced",
    "the product of the odd digits, 0 if all are even",
    "the elements that occur in both lists",
    "the largest prime factor of n",
    "the text with vowels removed",
    "how many times the pattern occurs, overlapping matches included",
    "the minimum number of moves",
    "the matrix transposed",
    "the date in ISO form",
    "None for an empty input",
]
_TYPES = ("int", "str", "float", "list[int]", "List[str]", "List[float]", "dict[str, int]", "bool", "Optional[int]")
_ARGS = (
    "n",
    "s",
    "text",
    "numbers",
    "lst",
    "arr",
    "words",
    "k",
    "threshold",
    "xs",
    "a",
    "b",
    "grid",
    "string",
    "values",
)


def _camel(name: str, upper: bool = False) -> str:
    parts = name.split("_")
    head = parts[0].capitalize() if upper else parts[0]
    return head + "".join(part.capitalize() for part in parts[1:])


def completion(rng: random.Random) -> str:
    """A function signature with a comment on what it shall do, in one of twelve languages: `code_generation`."""
    name, what = rng.choice(_NAMES), rng.choice(_WHAT)
    args = rng.sample(_ARGS, rng.randint(1, 3))
    example = f"{name}({', '.join(rng.choice(('3', '[1, 2, 3]', 'abc', '[]', '12', '[2.0, 5.5]')) for _ in args)})"
    result = rng.choice(("True", "False", "3", "[1, 2]", "'abc'", "0", "None"))
    language = rng.choice(
        ("python",) * 6
        + ("javascript", "typescript", "java", "cpp", "go", "rust", "csharp", "php", "ruby", "c", "kotlin")
    )
    camel = _camel(name)
    if language == "python":
        typed = rng.random() < 0.6
        signature = ", ".join(f"{a}: {rng.choice(_TYPES)}" if typed else a for a in args)
        arrow = f" -> {rng.choice(_TYPES)}" if typed else ""
        head = rng.choice(
            (
                "",
                "",
                "from typing import List\n\n\n",
                "import math\n\n",
                "from typing import List, Optional\n\n",
                "def helper(x):\n    return x * 2\n\n\n",
            )
        )
        doc = rng.choice(
            (
                f"Return {what}.",
                f"Given {args[0]}, return {what}.",
                f"{what[0].upper()}{what[1:]}.",
                f"You are given {args[0]}.\n    Your task is to return {what}.",
                f"Write a function that returns {what}",
            )
        )
        examples = (
            ""
            if rng.random() < 0.35
            else rng.choice(
                (
                    f"\n    >>> {example}\n    {result}",
                    f"\n\n    Example:\n    {example} ➞ {result}",
                    f"\n    For example:\n    {example} == {result}\n    {example} => {result}",
                )
            )
        )
        quote = rng.choice(('"""', '"""', "'''"))
        tail = rng.choice(("", "", "\n", "\n    ", "\n    # TODO", "\n    pass"))
        lead = rng.choice(("", " ", "\n    "))
        return f"{head}def {name}({signature}){arrow}:\n    {quote}{lead}{doc}{examples}\n    {quote}{tail}"
    if language in ("javascript", "typescript"):
        typed_args = ", ".join(f"{a}: number[]" for a in args) if language == "typescript" else ", ".join(args)
        comment = rng.choice((f"// return {what}", f"/**\n * Returns {what}.\n * @param {args[0]}\n */"))
        return f"{comment}\n" + rng.choice(
            (
                f"function {camel}({typed_args}) {{\n",
                f"const {camel} = ({typed_args}) => {{\n  ",
                f"export function {camel}({typed_args}) {{\n  // your code here\n}}",
            )
        )
    if language in ("java", "csharp"):
        cls = rng.choice(("Solution", "Main", "Strings", "Util"))
        method = _camel(name, upper=language == "csharp")
        return f"{'import java.util.*;' if language == 'java' else 'using System;'}\n\npublic class {cls} {{\n    // {what}\n    public static int {method}(int[] {args[0]}) {{\n"
    if language in ("cpp", "c"):
        include = "#include <vector>\nusing namespace std;" if language == "cpp" else "#include <stdio.h>"
        kind = "vector<int>" if language == "cpp" else "int *"
        return (
            f"/* Returns {what}.\n   {example} -> {result} */\n{include}\n\nint {name}({kind} {args[0]}, int size) {{\n"
        )
    if language == "go":
        return f"package main\n\n// {_camel(name, True)} returns {what}.\nfunc {_camel(name, True)}({args[0]} []int) int {{\n"
    if language == "rust":
        return f"/// Returns {what}.\n/// assert_eq!({name}(&[1, 2]), 3);\nfn {name}({args[0]}: &[i32]) -> i32 {{\n    todo!()\n}}"
    if language == "php":
        return f"<?php\n// {what}\nfunction {camel}(${args[0]}) {{\n"
    if language == "kotlin":
        return f"// {what}\nfun {camel}({args[0]}: List<Int>): Int {{\n"
    return f"# {what}\ndef {name}({args[0]})\n"


_BODIES = (
    "def average(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total / len(xs)",
    "def {f}({a}):\n    out = []\n    for i in range(len({a}) + 1):\n        out.append({a}[i])\n    return out",
    "function {f}({a}) {{\n  for (var i = 0; i <= {a}.length; i++) {{\n    console.log({a}[i].name)\n  }}\n}}",
    "public int {f}(int[] {a}) {{\n    int max = 0;\n    for (int v : {a}) if (v > max) max = v;\n    return max;\n}}",
    "const {f} = async () => {{\n  const res = fetch('/api/{a}')\n  return res.json()\n}}",
    "SELECT c.name, SUM(o.total)\nFROM customers c LEFT JOIN orders o ON o.cid = c.id\nWHERE o.total > 10\nGROUP BY c.id;",
    "func {f}({a} []string) map[string]int {{\n\tm := map[string]int{{}}\n\tfor _, v := range {a} {{\n\t\tm[v]++\n\t}}\n\treturn m\n}}",
    "fn {f}({a}: Vec<i32>) -> i32 {{\n    let mut best = {a}[0];\n    for v in {a}.iter() {{ if *v > best {{ best = *v }} }}\n    best\n}}",
    "class Account:\n    def __init__(self, {a}=[]):\n        self.{a} = {a}\n    def {f}(self, n):\n        self.{a}.append(n)\n        return self",
    "import pandas as pd\ndf = pd.read_csv('{a}.csv')\nfor i, row in df.iterrows():\n    df.loc[i, 'total'] = row['price'] * row['qty']",
    "#!/bin/bash\nfor f in $(ls *.txt); do\n  mv $f ${{f%.txt}}.md\ndone",
    '<div class="{f}">\n  <button onclick="{f}()">Go</button>\n</div>\n<script>\nfunction {f}() {{ document.getElementById(\'{a}\').innerHTML = input.value }}\n</script>',
    'int main() {{\n  char *{a} = malloc(10);\n  strcpy({a}, "hello world!");\n  printf("%s", {a});\n  return 0;\n}}',
    "try:\n    {f}({a})\nexcept:\n    pass",
    "@app.route('/{f}', methods=['POST'])\ndef {f}():\n    {a} = request.form['{a}']\n    db.execute(f\"SELECT * FROM users WHERE name = '{{{a}}}'\")\n    return 'ok'",
)
_ASK: dict[str, str] = {
    "code_review_debug": "Why does this not work?|what's wrong here|Find the bug.|Review this code.|this gives me an error, help|is there a memory leak in this?|Can you optimise this?|refactor this"
    "|i get the wrong result with this|Please check my code:|Any security problems here?|why is it so slow|fix this|Explain what this code does.|it crashes on empty input|what's the complexity of this and can it be better"
    "|it throws index out of range|my teacher says this is wrong. where?|Please simplify|how can I improve this function|What is the output of this code?|debug this for me pls",
    "documentation": "Write a docstring for this.|document this function|Add comments to this code|write a README for this|generate API docs for the code below|add javadoc|Write doc comments explaining parameters and return value"
    "|Create markdown documentation for this module|explain in a docs page how to use this|comment every line|Please add type hints and docstrings|write usage documentation for the following",
    "code_generation": "Write unit tests for this.|Translate this to {lang}.|port this to {lang}|Add a parameter that limits the length.|Extend this with logging|convert it to async|Write the same thing in {lang}|add error handling to this"
    "|complete this code|finish the implementation|make a class out of this|Add a main function that calls it with command line arguments|now add pagination to this|implement the missing part",
}


def snippet(rng: random.Random) -> str:
    """A short piece of code."""
    return (
        rng.choice(_BODIES).format(f=_camel(rng.choice(_NAMES)), a=rng.choice(_ARGS))
        if rng.random() < 0.97
        else rng.choice(_BODIES[:1])
    )


def code_question(rng: random.Random) -> tuple[str, str]:
    """A question about pasted code, with its intent."""
    label = rng.choice(("code_review_debug", "code_review_debug", "documentation", "code_generation"))
    ask = rng.choice(_ASK[label].split("|")).replace(
        "{lang}", rng.choice(("Python", "Go", "Rust", "Java", "TypeScript", "C++", "Kotlin"))
    )
    code = snippet(rng)
    if rng.random() < 0.4:
        code = f"```{rng.choice(('', 'python', 'js', 'java'))}\n{code}\n```"
    gap = rng.choice(("\n", "\n\n", " "))
    return (f"{ask}{gap}{code}" if rng.random() < 0.65 else f"{code}{gap}{ask}"), label
