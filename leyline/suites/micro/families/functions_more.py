"""More function families: state carried through loops, nested lists, text scanning, small algorithms.

Written as in `functions_basic`; LL is a list of lists of int.
"""

# ruff: noqa: E501

TEMPLATES = r"""
@ L -> I | Return the longest run of rising items in {a}. | Length of the longest stretch of {a} where each item is above the one before.
def {f}({a}):
    {r} = 0
    {t} = 0
    for {i} in range(len({a})):
        if {i} > 0 and {a}[{i}] > {a}[{i} - 1]:
            {t} += 1
        else:
            {t} = 1
        if {t} > {r}:
            {r} = {t}
    return {r}
@ L -> I | Return the largest drop from one item of {a} to the next, or 0.
def {f}({a}):
    {r} = 0
    for {x}, {y} in zip({a}, {a}[1:]):
        if {x} - {y} > {r}:
            {r} = {x} - {y}
    return {r}
@ L -> I | Return the best profit of buying at one item of {a} and selling at a later one, or 0.
def {f}({a}):
    if not {a}:
        return 0
    {t} = {a}[0]
    {r} = 0
    for {x} in {a}:
        {r} = max({r}, {x} - {t})
        {t} = min({t}, {x})
    return {r}
@ L -> L | Return the running maximum of {a}. | For each item of {a}, the largest item so far.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if {r} and {r}[-1] > {x}:
            {r}.append({r}[-1])
        else:
            {r}.append({x})
    return {r}
@ L -> L | Collapse neighbouring equal items of {a} into one. | Drop items of {a} that repeat the item before.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if not {r} or {r}[-1] != {x}:
            {r}.append({x})
    return {r}
@ L -> LL | Run-length encode {a} as pairs of item and count.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if {r} and {r}[-1][0] == {x}:
            {r}[-1][1] += 1
        else:
            {r}.append([{x}, 1])
    return {r}
@ LL -> L | Return the sum of each row of {a}. | Row sums of {a}.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        {r}.append(sum({x}))
    return {r}
@ LL -> I | Return the largest row sum of {a}, or {J} if there are no rows.
def {f}({a}):
    if len({a}) == 0:
        return {J}
    {r} = sum({a}[0])
    for {x} in {a}[1:]:
        {r} = max({r}, sum({x}))
    return {r}
@ LL -> L | Flatten {a} into one list, skipping items below {K}.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        for {y} in {x}:
            if {y} >= {K}:
                {r}.append({y})
    return {r}
@ LL I -> I | Count how often {b} occurs in the rows of {a}.
def {f}({a}, {b}):
    {r} = 0
    for {x} in {a}:
        for {y} in {x}:
            if {y} == {b}:
                {r} += 1
    return {r}
@ LL -> LL | Return {a} with each row reversed and empty rows dropped.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if len({x}) > 0:
            {r}.append({x}[::-1])
    return {r}
@ LL -> L | Return the lengths of the rows of {a} that have more than {K} items.
def {f}({a}):
    return [len({x}) for {x} in {a} if len({x}) > {K}]
@ LL -> I | Return the number of rows of {a} whose sum is even.
def {f}({a}):
    {r} = 0
    for {x} in {a}:
        if sum({x}) % 2 == 0:
            {r} += 1
    return {r}
@ S -> I | Return the depth of the deepest bracket nesting in {a}. | Deepest level of '(' in {a}.
def {f}({a}):
    {t} = 0
    {r} = 0
    for {x} in {a}:
        if {x} == '(':
            {t} += 1
        elif {x} == ')':
            {t} -= 1
        {r} = max({r}, {t})
    return {r}
@ S -> B | Tell whether the brackets in {a} are balanced.
def {f}({a}):
    {t} = 0
    for {x} in {a}:
        if {x} == '(':
            {t} += 1
        if {x} == ')':
            {t} -= 1
        if {t} < 0:
            return False
    return {t} == 0
@ S -> S | Write each run of a repeated letter in {a} as the letter and its count.
def {f}({a}):
    {r} = ''
    {i} = 0
    while {i} < len({a}):
        {t} = {i}
        while {t} < len({a}) and {a}[{t}] == {a}[{i}]:
            {t} += 1
        {r} += {a}[{i}] + str({t} - {i})
        {i} = {t}
    return {r}
@ S -> D | Count the letters of {a}, ignoring case and spaces.
def {f}({a}):
    {r} = {{}}
    for {x} in {a}.lower():
        if {x} == ' ':
            continue
        {r}[{x}] = {r}.get({x}, 0) + 1
    return {r}
@ S -> S | Reverse each word of {a} and keep their order. | Mirror every word of {a} in place.
def {f}({a}):
    {r} = []
    for {x} in {a}.split(' '):
        {r}.append({x}[::-1])
    return ' '.join({r})
@ S -> S | Return the longest word of {a}, the first one on ties.
def {f}({a}):
    {r} = ''
    for {x} in {a}.split(' '):
        if len({x}) > len({r}):
            {r} = {x}
    return {r}
@ S -> S | Return the initials of the words of {a} in upper case.
def {f}({a}):
    {r} = ''
    for {x} in {a}.split():
        {r} += {x}[0].upper()
    return {r}
@ S -> S | Remove the vowels of {a}, but keep the first character.
def {f}({a}):
    {r} = {a}[:1]
    for {x} in {a}[1:]:
        if {x} not in 'aeiou':
            {r} += {x}
    return {r}
@ S I -> S | Repeat each character of {a} {b} times, at most {K}.
def {f}({a}, {b}):
    {t} = min({b}, {K})
    {r} = ''
    for {x} in {a}:
        {r} += {x} * {t}
    return {r}
@ S S -> S | Keep the characters of {a} that do not occur in {b}.
def {f}({a}, {b}):
    {r} = ''
    for {x} in {a}:
        if {x} not in {b}:
            {r} += {x}
    return {r}
@ S S -> I | Return the length of the common start of {a} and {b}. | Number of leading characters that {a} and {b} share.
def {f}({a}, {b}):
    {r} = 0
    for {x}, {y} in zip({a}, {b}):
        if {x} != {y}:
            break
        {r} += 1
    return {r}
@ S S -> B | Tell whether {a} and {b} use the same letters, ignoring case.
def {f}({a}, {b}):
    return sorted({a}.lower()) == sorted({b}.lower())
@ S S -> S | Join {a} and {b} with '{s}', the shorter one first.
def {f}({a}, {b}):
    if len({b}) < len({a}):
        {a}, {b} = {b}, {a}
    return {a} + '{s}' + {b}
@ S I -> S | Insert '{s}' after every {b} characters of {a}.
def {f}({a}, {b}):
    {r} = []
    {i} = 0
    while {i} < len({a}):
        {r}.append({a}[{i}:{i} + max({b}, 1)])
        {i} += max({b}, 1)
    return '{s}'.join({r})
@ S -> S | Swap upper and lower case in {a}.
def {f}({a}):
    {r} = ''
    for {x} in {a}:
        if {x}.isupper():
            {r} += {x}.lower()
        else:
            {r} += {x}.upper()
    return {r}
@ S -> S | Turn {a} into a slug: lower case, with '{s}' for spaces.
def {f}({a}):
    {t} = {a}.strip().lower()
    return {t}.replace(' ', '{s}')
@ LS -> LS | Sort the words of {a} by length, longest first; words of equal length stay in order.
def {f}({a}):
    {r} = list({a})
    for {i} in range(len({r})):
        {t} = {i}
        while {t} > 0 and len({r}[{t} - 1]) < len({r}[{t}]):
            {r}[{t} - 1], {r}[{t}] = {r}[{t}], {r}[{t} - 1]
            {t} -= 1
    return {r}
@ LS -> LS | Number the words of {a} from {K}, as in '{K}{s}word'.
def {f}({a}):
    {r} = []
    for {i}, {x} in enumerate({a}):
        {r}.append(str({i} + {K}) + '{s}' + {x})
    return {r}
@ LS S -> I | Return the index of {b} in {a}, or {J} if it is not there.
def {f}({a}, {b}):
    for {i} in range(len({a})):
        if {a}[{i}] == {b}:
            return {i}
    return {J}
@ LS S -> LS | Put {b} between the words of {a}. | Words of {a} with {b} inserted between neighbours.
def {f}({a}, {b}):
    {r} = []
    for {i}, {x} in enumerate({a}):
        if {i} > 0:
            {r}.append({b})
        {r}.append({x})
    return {r}
@ LS -> D | Map each word of {a} to the position where it first occurs.
def {f}({a}):
    {r} = {{}}
    for {i}, {x} in enumerate({a}):
        if {x} not in {r}:
            {r}[{x}] = {i}
    return {r}
@ LS -> D | Map the first letter of the words of {a} to the longest length seen.
def {f}({a}):
    {r} = {{}}
    for {x} in {a}:
        {t} = {x}[0]
        if len({x}) > {r}.get({t}, 0):
            {r}[{t}] = len({x})
    return {r}
@ LS -> I | Return the total length of the words of {a} plus one for each gap between them.
def {f}({a}):
    if not {a}:
        return 0
    {r} = 0
    for {x} in {a}:
        {r} += len({x})
    return {r} + len({a}) - 1
@ LS I -> LS | Wrap the words of {a} into lines of at most {b} characters. | Fill lines of up to {b} characters with the words of {a}.
def {f}({a}, {b}):
    {r} = []
    {t} = ''
    for {x} in {a}:
        if {t} and len({t}) + 1 + len({x}) > {b}:
            {r}.append({t})
            {t} = {x}
        elif {t}:
            {t} += ' ' + {x}
        else:
            {t} = {x}
    if {t}:
        {r}.append({t})
    return {r}
"""
