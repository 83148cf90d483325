"""Function families that training never sees.

One template: `@ argument types -> result type | docstring | other wording`, then the code. Types: I int, S str, B bool, L list of
int, LS list of str, LL list of lists, D dict of str to int. Places: {f} function, {a} {b} {c} arguments, {x} {y} {r}
{t} {i} locals, {K} {J} {M} integers (K < M), {s} a short text.
"""

# ruff: noqa: E501

TEMPLATES = r"""
@ L I -> I | Return the index of the last item of {a} below {b}, or -1.
def {f}({a}, {b}):
    {r} = -1
    for {i} in range(len({a})):
        if {a}[{i}] < {b}:
            {r} = {i}
    return {r}
@ L -> I | Return the sum of the items of {a} at odd indices, minus {J}.
def {f}({a}):
    {r} = 0
    for {i} in range(1, len({a}), 2):
        {r} += {a}[{i}]
    return {r} - {J}
@ LS -> LS | Return the words of {a} in reverse order, each followed by '{s}'.
def {f}({a}):
    {r} = []
    for {x} in {a}[::-1]:
        {r}.append({x} + '{s}')
    return {r}
@ D -> S | Return the key of {a} with the smallest value, the first in the alphabet on ties.
def {f}({a}):
    {r} = ''
    for {x} in sorted({a}):
        if {r} == '' or {a}[{x}] < {a}[{r}]:
            {r} = {x}
    return {r}
@ I I -> I | Multiply {a} by itself {b} times, but stop once it is over {M}.
def {f}({a}, {b}):
    {r} = 1
    for {i} in range({b}):
        {r} *= {a}
        if {r} > {M}:
            break
    return {r}
@ S -> I | Count the words of {a} that have at least {K} letters.
def {f}({a}):
    {r} = 0
    for {x} in {a}.split(' '):
        if len({x}) >= {K}:
            {r} += 1
    return {r}
@ L L -> L | Return the items of {a} that are not in {b}, each increased by {K}.
def {f}({a}, {b}):
    {r} = []
    for {x} in {a}:
        if {x} not in {b}:
            {r}.append({x} + {K})
    return {r}
@ L -> I | Return the length of the longest run of equal items in {a}.
def {f}({a}):
    {r} = 0
    {t} = 0
    for {i} in range(len({a})):
        if {i} > 0 and {a}[{i}] == {a}[{i} - 1]:
            {t} += 1
        else:
            {t} = 1
        {r} = max({r}, {t})
    return {r}
@ I -> I | Count how many times {a} can be halved until it is below {K}.
def {f}({a}):
    {r} = 0
    while {a} >= {K}:
        {a} = {a} // 2
        {r} += 1
    return {r}
@ D I -> D | Return {a} without the entries whose value is above {b}.
def {f}({a}, {b}):
    {r} = {{}}
    for {x}, {y} in {a}.items():
        if {y} <= {b}:
            {r}[{x}] = {y}
    return {r}
"""
