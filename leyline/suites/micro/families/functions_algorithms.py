"""Function families: tables, sorted lists, searches, counts over a list.

Written as in `functions_basic`; they follow the families of `functions_more`.
"""

TEMPLATES = r"""
@ D -> S | Return the key of {a} with the largest value, the last in the alphabet on ties.
def {f}({a}):
    {r} = None
    for {x} in sorted({a}):
        if {r} is None or {a}[{x}] >= {a}[{r}]:
            {r} = {x}
    return {r}
@ D -> D | Double the values of {a} and drop those above {M}.
def {f}({a}):
    {r} = {{}}
    for {x}, {y} in {a}.items():
        {t} = {y} * 2
        if {t} > {M}:
            continue
        {r}[{x}] = {t}
    return {r}
@ D D -> D | Subtract the values of {b} from {a}; keys only in {b} are ignored.
def {f}({a}, {b}):
    {r} = {{}}
    for {x}, {y} in {a}.items():
        {r}[{x}] = {y} - {b}.get({x}, 0)
    return {r}
@ D D -> LS | List the keys that {a} and {b} share with equal values, sorted.
def {f}({a}, {b}):
    {r} = []
    for {x} in sorted({a}):
        if {x} in {b} and {a}[{x}] == {b}[{x}]:
            {r}.append({x})
    return {r}
@ D S -> I | Look up {b} in {a}; use half of {J} rounded down when it is missing.
def {f}({a}, {b}):
    if {b} in {a}:
        return {a}[{b}]
    return {J} // 2
@ D I -> S | Return the keys of {a} with a value above {b}, joined by '{s}' in order.
def {f}({a}, {b}):
    {t} = [{x} for {x}, {y} in {a}.items() if {y} > {b}]
    return '{s}'.join(sorted({t}))
@ D -> L | Return the values of {a} in the order of their keys, without the largest.
def {f}({a}):
    {t} = max({a}.values())
    {r} = [{a}[{x}] for {x} in sorted({a})]
    {r}.remove({t})
    return {r}
@ L I -> L | Insert {b} into the sorted list of {a} so that it stays sorted.
def {f}({a}, {b}):
    {r} = sorted({a})
    {i} = 0
    while {i} < len({r}) and {r}[{i}] < {b}:
        {i} += 1
    {r}.insert({i}, {b})
    return {r}
@ L I -> B | Search {b} in the sorted items of {a} by halving.
def {f}({a}, {b}):
    {r} = sorted({a})
    {x}, {y} = 0, len({r}) - 1
    while {x} <= {y}:
        {t} = ({x} + {y}) // 2
        if {r}[{t}] == {b}:
            return True
        if {r}[{t}] < {b}:
            {x} = {t} + 1
        else:
            {y} = {t} - 1
    return False
@ L L -> L | Merge the sorted items of {a} and {b} into one sorted list.
def {f}({a}, {b}):
    {x}, {y} = sorted({a}), sorted({b})
    {r} = []
    while {x} and {y}:
        if {x}[0] <= {y}[0]:
            {r}.append({x}.pop(0))
        else:
            {r}.append({y}.pop(0))
    return {r} + {x} + {y}
@ L L -> L | Return the items that {a} and {b} share, each once, sorted.
def {f}({a}, {b}):
    {r} = set()
    for {x} in {a}:
        if {x} in {b}:
            {r}.add({x})
    return sorted({r})
@ L L -> L | Add {a} and {b} item by item; the longer one keeps its rest.
def {f}({a}, {b}):
    {r} = []
    for {i} in range(max(len({a}), len({b}))):
        {t} = 0
        if {i} < len({a}):
            {t} += {a}[{i}]
        if {i} < len({b}):
            {t} += {b}[{i}]
        {r}.append({t})
    return {r}
@ L -> LL | Split {a} into the items below {K} and the others. | Two lists: items of {a} under {K}, and the rest.
def {f}({a}):
    {x}, {y} = [], []
    for {t} in {a}:
        if {t} < {K}:
            {x}.append({t})
        else:
            {y}.append({t})
    return [{x}, {y}]
@ L -> LL | Cut {a} into pieces after every item that is a multiple of {K}.
def {f}({a}):
    {r} = []
    {t} = []
    for {x} in {a}:
        {t}.append({x})
        if {x} % {K} == 0:
            {r}.append({t})
            {t} = []
    if {t}:
        {r}.append({t})
    return {r}
@ L -> I | Return the second largest different item of {a}, or {J} if there is none.
def {f}({a}):
    {t} = sorted(set({a}))
    if len({t}) < 2:
        return {J}
    return {t}[-2]
@ L -> I | Return the middle item of the sorted {a}, the lower one of two, or {J} if it is empty.
def {f}({a}):
    if not {a}:
        return {J}
    {t} = sorted({a})
    return {t}[(len({t}) - 1) // 2]
@ L -> I | Count the items of {a} that are larger than both neighbours. | Number of peaks inside {a}.
def {f}({a}):
    {r} = 0
    for {i} in range(1, len({a}) - 1):
        if {a}[{i}] > {a}[{i} - 1] and {a}[{i}] > {a}[{i} + 1]:
            {r} += 1
    return {r}
@ L -> I | Play {a} as moves from 0 and return how often the position is exactly 0 again.
def {f}({a}):
    {t} = 0
    {r} = 0
    for {x} in {a}:
        {t} += {x}
        if {t} == 0:
            {r} += 1
    return {r}
@ L I -> I | Count the pairs of different positions in {a} whose items add up to {b}.
def {f}({a}, {b}):
    {r} = 0
    for {i} in range(len({a})):
        for {t} in range({i} + 1, len({a})):
            if {a}[{i}] + {a}[{t}] == {b}:
                {r} += 1
    return {r}
@ L -> I | Read {a} as decimal digits, each taken modulo 10, and return the number.
def {f}({a}):
    {r} = 0
    for {x} in {a}:
        {r} = {r} * 10 + {x} % 10
    return {r}
"""
