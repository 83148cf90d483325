"""Function families: two inputs at once, windows, padding, counting, number series.

Written as in `functions_basic`, whose families they follow.
"""

# ruff: noqa: E501

TEMPLATES = r"""
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
