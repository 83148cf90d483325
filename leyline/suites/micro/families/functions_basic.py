"""Function families: filters, sums, positions, text, tables.

One template: `@ argument types -> result type | docstring | other wording`, then the code. Types: I int, S str, B bool, L list of
int, LS list of str, LL list of lists, D dict of str to int. Places: {f} function, {a} {b} {c} arguments, {x} {y} {r}
{t} {i} locals, {K} {J} {M} integers (K < M), {s} a short text.
"""

# ruff: noqa: E501

TEMPLATES = r"""
@ L I -> I | Return the sum of the items of {a} that are greater than {b}. | Add up every item of {a} above {b}.
def {f}({a}, {b}):
    {r} = 0
    for {x} in {a}:
        if {x} > {b}:
            {r} += {x}
    return {r}
@ L -> I | Count the items of {a} that are at least {K}. | How many items of {a} are {K} or more.
def {f}({a}):
    {r} = 0
    for {x} in {a}:
        if {x} >= {K}:
            {r} += 1
    return {r}
@ L -> I | Count the items of {a} that are at least {K}. | Number of items of {a} not below {K}.
def {f}({a}):
    {t} = [{x} for {x} in {a} if {x} >= {K}]
    return len({t})
@ I I I -> I | Limit {a} to the range from {b} to {c}. | Clamp {a} between {b} and {c}.
def {f}({a}, {b}, {c}):
    if {a} < {b}:
        return {b}
    if {a} > {c}:
        return {c}
    return {a}
@ L -> L | Multiply each item of {a} by {K} and add {J}. | Scale every item of {a} by {K}, then shift it up by {J}.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        {r}.append({x} * {K} + {J})
    return {r}
@ L -> L | Multiply each item of {a} by {K} and subtract {J}.
def {f}({a}):
    return [{x} * {K} - {J} for {x} in {a}]
@ L -> L | Return the last {K} items of {a}. | Keep only the final {K} items of {a}.
def {f}({a}):
    {t} = len({a}) - {K}
    if {t} < 0:
        {t} = 0
    return {a}[{t}:]
@ L -> L | Return the first {K} items of {a} in reverse order.
def {f}({a}):
    {r} = {a}[:{K}]
    return {r}[::-1]
@ L -> L | Return the differences between neighbours of {a}. | List each item of {a} minus the one before it.
def {f}({a}):
    {r} = []
    for {i} in range(1, len({a})):
        {r}.append({a}[{i}] - {a}[{i} - 1])
    return {r}
@ L -> L | Return the running totals of {a}. | Cumulative sums of {a}.
def {f}({a}):
    {t} = 0
    {r} = []
    for {x} in {a}:
        {t} += {x}
        {r}.append({t})
    return {r}
@ L -> I | Return the largest item minus the smallest item of {a}, or {J} if it is empty.
def {f}({a}):
    if not {a}:
        return {J}
    return max({a}) - min({a})
@ L I -> I | Return the index of the first item of {a} above {b}, or -1. | Position of the first item of {a} greater than {b}, else -1.
def {f}({a}, {b}):
    for {i}, {x} in enumerate({a}):
        if {x} > {b}:
            return {i}
    return -1
@ S -> I | Count the vowels in {a}.
def {f}({a}):
    {r} = 0
    for {x} in {a}.lower():
        if {x} in 'aeiou':
            {r} += 1
    return {r}
@ LS -> S | Join the words of {a} with '{s}' in upper case. | Upper case all words of {a} and join them with '{s}'.
def {f}({a}):
    {t} = [{x}.upper() for {x} in {a}]
    return '{s}'.join({t})
@ LS -> S | Join the words of {a} with '{s}' in lower case.
def {f}({a}):
    {t} = []
    for {x} in {a}:
        {t}.append({x}.lower())
    return '{s}'.join({t})
@ S -> S | Cut {a} to {K} characters and mark a cut with '{s}'. | Shorten {a} to at most {K} characters, adding '{s}' if it was cut.
def {f}({a}):
    if len({a}) <= {K}:
        return {a}
    return {a}[:{K}] + '{s}'
@ LS -> D | Group the words of {a} by length and count them. | Map each word length in {a} to how often it occurs.
def {f}({a}):
    {r} = {{}}
    for {x} in {a}:
        {t} = len({x})
        {r}[{t}] = {r}.get({t}, 0) + 1
    return {r}
@ L -> D | Count how often each item occurs in {a}.
def {f}({a}):
    {r} = {{}}
    for {x} in {a}:
        if {x} not in {r}:
            {r}[{x}] = 0
        {r}[{x}] += 1
    return {r}
@ D -> I | Sum the values of {a} that are below {K}. | Total of all values in {a} less than {K}.
def {f}({a}):
    {r} = 0
    for {x}, {y} in {a}.items():
        if {y} < {K}:
            {r} += {y}
    return {r}
@ D I -> LS | List the keys of {a} with a value of at least {b}, sorted. | Sorted keys of {a} whose value is {b} or more.
def {f}({a}, {b}):
    {r} = []
    for {x}, {y} in {a}.items():
        if {y} >= {b}:
            {r}.append({x})
    return sorted({r})
@ L -> I | Return the whole-number mean of {a}, or {J} if it is empty. | Integer average of {a}; {J} for an empty list.
def {f}({a}):
    if len({a}) == 0:
        return {J}
    return sum({a}) // len({a})
@ L -> LL | Split {a} into chunks of {K} items. | Cut {a} into pieces of length {K}.
def {f}({a}):
    {r} = []
    for {i} in range(0, len({a}), {K}):
        {r}.append({a}[{i}:{i} + {K}])
    return {r}
@ L -> L | Remove duplicates from {a} and keep the order. | Unique items of {a} in order of first appearance.
def {f}({a}):
    {t} = set()
    {r} = []
    for {x} in {a}:
        if {x} not in {t}:
            {t}.add({x})
            {r}.append({x})
    return {r}
@ L L -> I | Sum the products of matching items of {a} and {b}. | Dot product of {a} and {b}.
def {f}({a}, {b}):
    {r} = 0
    for {x}, {y} in zip({a}, {b}):
        {r} += {x} * {y}
    return {r}
@ L -> L | Keep the items of {a} that are multiples of {K}. | Items of {a} divisible by {K}.
def {f}({a}):
    return [{x} for {x} in {a} if {x} % {K} == 0]
@ L -> L | Keep the items of {a} that are not multiples of {K}.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if {x} % {K} != 0:
            {r}.append({x})
    return {r}
@ I -> S | Grade {a}: 'low' below {K}, 'mid' below {M}, else 'high'. | Label {a} 'low' under {K}, 'mid' under {M} and 'high' otherwise.
def {f}({a}):
    if {a} < {K}:
        return 'low'
    if {a} < {M}:
        return 'mid'
    return 'high'
@ I I -> I | Price of {b} units at {a} each, less {J} if more than {K} units. | Multiply {a} by {b}; take {J} off when {b} is above {K}.
def {f}({a}, {b}):
    {r} = {a} * {b}
    if {b} > {K}:
        {r} -= {J}
    return {r}
@ I I -> I | Cost of {b} units at {a} each, plus a fee of {J} for fewer than {K} units.
def {f}({a}, {b}):
    {r} = {a} * {b}
    if {b} < {K}:
        {r} += {J}
    return {r}
@ I -> I | Return the sum of the decimal digits of {a}.
def {f}({a}):
    {r} = 0
    while {a} > 0:
        {r} += {a} % 10
        {a} = {a} // 10
    return {r}
@ S -> B | Tell whether {a} reads the same backwards, ignoring case.
def {f}({a}):
    {t} = {a}.lower()
    return {t} == {t}[::-1]
@ S -> S | Shift every lower case letter of {a} by {K} places. | Caesar shift of {a} by {K}; other characters stay.
def {f}({a}):
    {r} = ''
    for {x} in {a}:
        if {x}.islower():
            {t} = (ord({x}) - 97 + {K}) % 26
            {r} += chr({t} + 97)
        else:
            {r} += {x}
    return {r}
@ L -> L | Rotate {a} to the left by {K} places.
def {f}({a}):
    if not {a}:
        return []
    {t} = {K} % len({a})
    return {a}[{t}:] + {a}[:{t}]
"""
