"""Function families: number algorithms, formats, texts and rows, small simulations.

Written as in `functions_basic`; they follow the families of `functions_algorithms`.
"""

TEMPLATES = r"""
@ I -> S | Write {a} in base {K}, or '0' for numbers below 1.
def {f}({a}):
    if {a} < 1:
        return '0'
    {r} = ''
    while {a} > 0:
        {r} = str({a} % {K}) + {r}
        {a} = {a} // {K}
    return {r}
@ I -> I | Count the steps until {a} is 1: halve even numbers, otherwise triple and add one.
def {f}({a}):
    {r} = 0
    while {a} > 1:
        if {a} % 2 == 0:
            {a} = {a} // 2
        else:
            {a} = {a} * 3 + 1
        {r} += 1
    return {r}
@ I -> L | List the prime factors of {a} in rising order.
def {f}({a}):
    {r} = []
    {x} = 2
    while {x} <= {a}:
        if {a} % {x} == 0:
            {r}.append({x})
            {a} = {a} // {x}
        else:
            {x} += 1
    return {r}
@ I -> S | Say 'fizz' for multiples of {K}, 'buzz' for multiples of {M}, both joined for both, else the number as text.
def {f}({a}):
    {r} = ''
    if {a} % {K} == 0:
        {r} += 'fizz'
    if {a} % {M} == 0:
        {r} += 'buzz'
    return {r} or str({a})
@ I -> S | Format {a} minutes as hours and minutes, as in '1{s}05'.
def {f}({a}):
    {x} = {a} // 60
    {y} = {a} % 60
    if {y} < 10:
        return str({x}) + '{s}0' + str({y})
    return str({x}) + '{s}' + str({y})
@ I I -> I | Charge {K} for each of the first {b} of {a} units and {J} for each unit beyond.
def {f}({a}, {b}):
    if {a} <= {b}:
        return {a} * {K}
    return {b} * {K} + ({a} - {b}) * {J}
@ I I -> I | Move from {a} towards {b} by at most {K}.
def {f}({a}, {b}):
    if {a} < {b}:
        return min({a} + {K}, {b})
    return max({a} - {K}, {b})
@ I I -> I | Add {a} and {b} on a dial with {M} positions. | Position on a dial of {M} after turning {a} by {b}.
def {f}({a}, {b}):
    {r} = ({a} + {b}) % {M}
    return {r}
@ I I I -> I | Return the middle one of {a}, {b} and {c}.
def {f}({a}, {b}, {c}):
    {r} = [{a}, {b}, {c}]
    {r}.sort()
    return {r}[1]
@ I I I -> S | Name the triangle with sides {a}, {b} and {c}: 'equal', 'two' or 'none' for how many sides match.
def {f}({a}, {b}, {c}):
    if {a} == {b} and {b} == {c}:
        return 'equal'
    if {a} == {b} or {b} == {c} or {a} == {c}:
        return 'two'
    return 'none'
@ L I I -> L | Replace every {b} in {a} by {c}, at most {K} times.
def {f}({a}, {b}, {c}):
    {r} = []
    {t} = 0
    for {x} in {a}:
        if {x} == {b} and {t} < {K}:
            {r}.append({c})
            {t} += 1
        else:
            {r}.append({x})
    return {r}
@ L I -> L | Return a copy of {a} with {b} added at the end unless it is already there.
def {f}({a}, {b}):
    {r} = list({a})
    if {b} not in {r}:
        {r}.append({b})
    return {r}
@ L -> L | Swap the first and last item of a copy of {a}.
def {f}({a}):
    {r} = {a}[:]
    if len({r}) > 1:
        {r}[0], {r}[-1] = {r}[-1], {r}[0]
    return {r}
@ LS -> LS | Return the words of {a} that read the same backwards, without one-letter words.
def {f}({a}):
    return [{x} for {x} in {a} if len({x}) > 1 and {x} == {x}[::-1]]
@ LS I -> LS | Cut each word of {a} to {b} letters and drop words that become empty.
def {f}({a}, {b}):
    {r} = []
    for {x} in {a}:
        {t} = {x}[:max({b}, 0)]
        if {t}:
            {r}.append({t})
    return {r}
@ S -> LS | Split {a} into words and return them sorted, each once.
def {f}({a}):
    {r} = []
    for {x} in {a}.split():
        if {x} not in {r}:
            {r}.append({x})
    return sorted({r})
@ S -> I | Add up the alphabet positions of the lower case letters of {a}, with a as 1.
def {f}({a}):
    {r} = 0
    for {x} in {a}:
        if {x}.islower():
            {r} += ord({x}) - 96
    return {r}
@ S -> B | Tell whether {a} has at least {K} characters and at least one upper case letter.
def {f}({a}):
    if len({a}) < {K}:
        return False
    return any({x}.isupper() for {x} in {a})
@ LL -> B | Tell whether all rows of {a} have the same length.
def {f}({a}):
    for {x} in {a}:
        if len({x}) != len({a}[0]):
            return False
    return True
@ LL -> L | Return the first item of each row of {a}, or {J} for empty rows.
def {f}({a}):
    {r} = []
    for {x} in {a}:
        if {x}:
            {r}.append({x}[0])
        else:
            {r}.append({J})
    return {r}
@ L I -> I | Simulate a tank of size {b}: add each item of {a}, spill what does not fit, and return the level.
def {f}({a}, {b}):
    {r} = 0
    for {x} in {a}:
        {r} += {x}
        if {r} > {b}:
            {r} = {b}
    return {r}
@ L I -> I | Return how many items of {a} can be bought, cheapest first, with {b} to spend.
def {f}({a}, {b}):
    {r} = 0
    for {x} in sorted({a}):
        if {x} > {b}:
            break
        {b} -= {x}
        {r} += 1
    return {r}
"""
