"""Functions that call another function of the module and use its result.

One template: `@ argument types -> result type | docstring | other wording`, then the code. Types: I int, S str, B bool, L list of
int, LS list of str, LL list of lists, D dict of str to int. Places: {f} function, {a} {b} {c} arguments, {x} {y} {r}
{t} {i} locals, {K} {J} {M} integers (K < M), {s} a short text, {g} the helper, {ga} its arguments.
"""

# ruff: noqa: E501

TEMPLATES = r"""
@ I -> I | Call {g} and cap its result at {M}. | Result of {g}, but at most {M}.
    {r} = {g}({ga})
    if {r} > {M}:
        return {M}
    return {r}
@ I -> I | Call {g} and return its result times {K} plus {J}.
    {r} = {g}({ga})
    return {r} * {K} + {J}
@ I -> S | Describe the result of {g}: 'big' above {K}, else 'small'.
    if {g}({ga}) > {K}:
        return 'big'
    return 'small'
@ I -> L | Return the result of {g} and {K} less than it, as a list.
    {r} = {g}({ga})
    return [{r}, {r} - {K}]
@ L -> I | Return the sum of what {g} returns plus {J}. | Total of the list from {g}, plus {J}.
    {r} = {g}({ga})
    return sum({r}) + {J}
@ L -> L | Return the items from {g} that are above {K}. | Filter the result of {g}, keeping items above {K}.
    {r} = {g}({ga})
    return [{x} for {x} in {r} if {x} > {K}]
@ L -> I | Return how many items {g} gives, times {K}.
    return len({g}({ga})) * {K}
@ L -> L | Sort the result of {g} in falling order and keep {K} items.
    {r} = sorted({g}({ga}), reverse=True)
    return {r}[:{K}]
@ S -> S | Return the text from {g} with '{s}' in front. | Put '{s}' before the result of {g}.
    {r} = {g}({ga})
    return '{s}' + {r}
@ S -> I | Return the length of the text from {g} plus {J}.
    {r} = {g}({ga})
    return len({r}) + {J}
@ S -> S | Return the text from {g} without its last {K} characters.
    {r} = {g}({ga})
    return {r}[:-{K}]
@ B -> S | Return 'yes' if {g} is true, else 'no'. | Turn the result of {g} into 'yes' or 'no'.
    if {g}({ga}):
        return 'yes'
    return 'no'
@ B -> I | Return {K} when {g} is true, otherwise {J}.
    return {K} if {g}({ga}) else {J}
@ D -> I | Return the sum of the values of the dict from {g}, minus {J}.
    {r} = {g}({ga})
    return sum({r}.values()) - {J}
@ D -> L | Return the sorted values of the dict from {g}.
    {r} = {g}({ga})
    return sorted({r}.values())
@ LS -> S | Join the words from {g} with '{s}'.
    return '{s}'.join({g}({ga}))
@ LS -> I | Return the number of words from {g} plus {J}.
    {r} = {g}({ga})
    return len({r}) + {J}
@ LL -> I | Return the number of chunks from {g} plus {J}.
    {r} = {g}({ga})
    return len({r}) + {J}
@ LL -> L | Return the sum of each chunk from {g}.
    return [sum({x}) for {x} in {g}({ga})]
"""
