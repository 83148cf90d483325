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
@ I -> I | Return the distance between the result of {g} and {K}.
    {r} = {g}({ga})
    return abs({r} - {K})
@ I -> B | Tell whether {g} gives an even number above {J}.
    {r} = {g}({ga})
    return {r} % 2 == 0 and {r} > {J}
@ I -> I | Return the result of {g}, but 0 if it is below {K}. | Result of {g}, or 0 when that is under {K}.
    {r} = {g}({ga})
    if {r} < {K}:
        return 0
    return {r}
@ I -> S | Write the result of {g} as text, padded with '{s}' to {K} characters on the left.
    {r} = str({g}({ga}))
    while len({r}) < {K}:
        {r} = '{s}' + {r}
    return {r}
@ I -> L | Count down from the result of {g} to {K}, both included.
    return list(range({g}({ga}), {K} - 1, -1))
@ L -> I | Return the largest item that {g} gives, or {J} if there is none.
    {r} = {g}({ga})
    if not {r}:
        return {J}
    return max({r})
@ L -> L | Return the result of {g} with {J} added to each item.
    return [{x} + {J} for {x} in {g}({ga})]
@ L -> S | Join the items of {g} as text with '{s}'.
    return '{s}'.join([str({x}) for {x} in {g}({ga})])
@ L -> B | Tell whether {g} gives more than {K} items or an item of exactly {J}.
    {r} = {g}({ga})
    return len({r}) > {K} or {J} in {r}
@ L -> D | Map the items of {g} to how often they occur there.
    {r} = {{}}
    for {x} in {g}({ga}):
        {r}[{x}] = {r}.get({x}, 0) + 1
    return {r}
@ L -> L | Return the items of {g} without the first {K}.
    {r} = {g}({ga})
    return {r}[{K}:]
@ S -> B | Tell whether {g} gives a text with at least {K} characters.
    return len({g}({ga})) >= {K}
@ S -> LS | List the words of the text from {g} in reverse order.
    {r} = {g}({ga}).split()
    return {r}[::-1]
@ S -> S | Return the text from {g} in upper case, then '{s}'.
    {r} = {g}({ga})
    return {r}.upper() + '{s}'
@ B -> S | Return '{s}' {K} times if {g} is true, else an empty text.
    if not {g}({ga}):
        return ''
    return '{s}' * {K}
@ D -> I | Return the number of entries of the dict from {g} with a value above {K}.
    {r} = 0
    for {x} in {g}({ga}).values():
        if {x} > {K}:
            {r} += 1
    return {r}
@ D -> D | Return the dict from {g} with each value times {K}.
    {r} = {{}}
    for {x}, {y} in {g}({ga}).items():
        {r}[{x}] = {y} * {K}
    return {r}
@ LS -> LS | Return the words from {g} that are longer than {K} letters.
    return [{x} for {x} in {g}({ga}) if len({x}) > {K}]
@ LS -> D | Map each word from {g} to its length plus {J}.
    {r} = {{}}
    for {x} in {g}({ga}):
        {r}[{x}] = len({x}) + {J}
    return {r}
@ LL -> L | Return the lengths of the lists from {g}, longest first.
    {r} = [len({x}) for {x} in {g}({ga})]
    return sorted({r}, reverse=True)
"""
