"""Small functions: the families that every task set draws from.

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
@ D D -> D | Merge {a} and {b}, adding the values of shared keys. | Combine {a} and {b}; values of common keys are summed.
def {f}({a}, {b}):
    {r} = dict({a})
    for {x}, {y} in {b}.items():
        {r}[{x}] = {r}.get({x}, 0) + {y}
    return {r}
@ D D -> D | Merge {a} and {b}, keeping the larger value of shared keys.
def {f}({a}, {b}):
    {r} = dict({a})
    for {x}, {y} in {b}.items():
        if {x} not in {r} or {y} > {r}[{x}]:
            {r}[{x}] = {y}
    return {r}
@ L L -> L | Interleave {a} and {b} while both have items. | Alternate the items of {a} and {b}, starting with {a}.
def {f}({a}, {b}):
    {r} = []
    for {i} in range(min(len({a}), len({b}))):
        {r}.append({a}[{i}])
        {r}.append({b}[{i}])
    return {r}
@ L -> I | Return the product of the items of {a} that are not zero.
def {f}({a}):
    {r} = 1
    for {x} in {a}:
        if {x} != 0:
            {r} *= {x}
    return {r}
@ I I -> I | Add up the whole numbers from {a} to {b}, both included. | Sum of the range {a} to {b} inclusive.
def {f}({a}, {b}):
    {r} = 0
    for {x} in range({a}, {b} + 1):
        {r} += {x}
    return {r}
@ I -> I | Start with {K} and {J} and return the sum sequence after {a} steps. | Two-term sum sequence from {K}, {J}; return the first term after {a} steps.
def {f}({a}):
    {x}, {y} = {K}, {J}
    for {i} in range({a}):
        {x}, {y} = {y}, {x} + {y}
    return {x}
@ L -> I | Count how often an item of {a} is bigger than the one before it. | Number of rises in {a}.
def {f}({a}):
    {r} = 0
    for {i} in range(1, len({a})):
        if {a}[{i}] > {a}[{i} - 1]:
            {r} += 1
    return {r}
@ L -> L | Return the sums of every {K} neighbouring items of {a}. | Sliding window sums of {a} with width {K}.
def {f}({a}):
    {r} = []
    for {i} in range(len({a}) - {K} + 1):
        {r}.append(sum({a}[{i}:{i} + {K}]))
    return {r}
@ L I -> L | Take items of {a} until their sum would exceed {b}. | Longest start of {a} whose sum is at most {b}.
def {f}({a}, {b}):
    {r} = []
    {t} = 0
    for {x} in {a}:
        if {t} + {x} > {b}:
            break
        {t} += {x}
        {r}.append({x})
    return {r}
@ L -> I | Return the most common item of {a}, the smallest one on ties; {J} if it is empty.
def {f}({a}):
    if not {a}:
        return {J}
    {t} = 0
    {r} = {J}
    for {x} in sorted(set({a})):
        if {a}.count({x}) > {t}:
            {t} = {a}.count({x})
            {r} = {x}
    return {r}
@ S -> S | Pad {a} on the left with '{s}' to a width of {M}.
def {f}({a}):
    {t} = {M} - len({a})
    if {t} <= 0:
        return {a}
    return '{s}' * {t} + {a}
@ S -> S | Pad {a} on the right with '{s}' to a width of {M}.
def {f}({a}):
    while len({a}) < {M}:
        {a} = {a} + '{s}'
    return {a}
@ LS -> I | Return the length of the longest word of {a}, or {J} if it is empty.
def {f}({a}):
    if not {a}:
        return {J}
    {r} = 0
    for {x} in {a}:
        if len({x}) > {r}:
            {r} = len({x})
    return {r}
@ LS -> LS | Keep the words of {a} that have more than {K} letters. | Words of {a} longer than {K}.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if len({x}) > {K}:
            {r}.append({x})
    return {r}
@ LS S -> I | Return how many words of {a} start with the first letter of {b}.
def {f}({a}, {b}):
    {r} = 0
    for {x} in {a}:
        if {x}[0] == {b}[0]:
            {r} += 1
    return {r}
@ I I -> I | Greatest common divisor of {a} and {b}.
def {f}({a}, {b}):
    while {b} != 0:
        {a}, {b} = {b}, {a} % {b}
    return {a}
@ I -> L | List the divisors of {a} in rising order. | All whole numbers that divide {a}.
def {f}({a}):
    {r} = []
    for {x} in range(1, {a} + 1):
        if {a} % {x} == 0:
            {r}.append({x})
    return {r}
@ I -> B | Tell whether {a} is a prime number.
def {f}({a}):
    if {a} < 2:
        return False
    for {x} in range(2, {a}):
        if {a} % {x} == 0:
            return False
    return True
@ L I -> L | Move every item of {a} equal to {b} to the end. | Put the items of {a} that equal {b} last.
def {f}({a}, {b}):
    {r} = [{x} for {x} in {a} if {x} != {b}]
    {t} = [{x} for {x} in {a} if {x} == {b}]
    return {r} + {t}
@ L I I -> I | Count the items of {a} from {b} to {c}, both included. | How many items of {a} lie between {b} and {c} inclusive.
def {f}({a}, {b}, {c}):
    {r} = 0
    for {x} in {a}:
        if {b} <= {x} and {x} <= {c}:
            {r} += 1
    return {r}
@ I -> I | Convert {a} steps to points: {K} per step, at most {M}. | {K} points for each of {a} steps, capped at {M}.
def {f}({a}):
    return min({a} * {K}, {M})
@ I -> I | Level {a} minus {K}, but not below {J}. | Subtract {K} from {a} with a floor of {J}.
def {f}({a}):
    return max({a} - {K}, {J})
@ I I -> I | Number of groups of {K} needed for {a} plus {b} people. | How many groups of {K} hold {a} plus {b} people.
def {f}({a}, {b}):
    {t} = {a} + {b}
    {r} = {t} // {K}
    if {t} % {K} > 0:
        {r} += 1
    return {r}
@ S S -> I | Count the positions where {a} and {b} have the same letter.
def {f}({a}, {b}):
    {r} = 0
    for {x}, {y} in zip({a}, {b}):
        if {x} == {y}:
            {r} += 1
    return {r}
@ S -> S | Return {a} with the first letter of each word in upper case.
def {f}({a}):
    {r} = []
    for {x} in {a}.split(' '):
        {r}.append({x}[:1].upper() + {x}[1:])
    return ' '.join({r})
@ L I -> L | Add {b} to every item of {a} at an even index. | Items of {a}, with {b} added at even positions.
def {f}({a}, {b}):
    {r} = list({a})
    for {i} in range(0, len({r}), 2):
        {r}[{i}] += {b}
    return {r}
@ L -> L | Square the negative items of {a} and halve the others. | Negative items of {a} squared, others divided by two, rounded down.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if {x} < 0:
            {r}.append({x} * {x})
        else:
            {r}.append({x} // 2)
    return {r}
@ L I -> B | Tell whether any two neighbours of {a} add up to {b}.
def {f}({a}, {b}):
    for {i} in range(len({a}) - 1):
        if {a}[{i}] + {a}[{i} + 1] == {b}:
            return True
    return False
@ L I -> B | Tell whether all items of {a} are at most {b}. | True if no item of {a} is above {b}.
def {f}({a}, {b}):
    for {x} in {a}:
        if {x} > {b}:
            return False
    return True
"""
