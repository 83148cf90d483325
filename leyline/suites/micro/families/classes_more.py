"""More class families: caches, undo, limits, orders of updates, copies handed out."""

from __future__ import annotations

from leyline.suites.micro.families.dsl import ClassTemplate

CLASSES = (
    ClassTemplate(
        init="",
        steps=("{o}.{m1}('{w}', {i})", "{o}.{m1}('{w}', {i})", "{o}.{m2}('{w}')"),
        checks=("{o}.{m2}('{w}')", "{o}.{m3}()"),
        code='''
class {f}:
    """Settings with a cache of looked-up values; a missing name gives {J}."""
    def __init__(self):
        self.{t} = {{}}
        self.{r} = {{}}
    def {m1}(self, {a}, {b}):
        """Set {a} to {b} and forget its cached value."""
        self.{t}[{a}] = {b}
        self.{r}.pop({a}, None)
    def {m2}(self, {a}):
        """Return the value of {a} times {K}, from the cache if it is there."""
        if {a} not in self.{r}:
            self.{r}[{a}] = self.{t}.get({a}, {J}) * {K}
        return self.{r}[{a}]
    def {m3}(self):
        """Return the number of cached values."""
        return len(self.{r})
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m2}()"),
        code='''
class {f}:
    """Number that starts at {J} and can undo its last changes."""
    def __init__(self):
        self.{t} = {J}
        self.{r} = []
    def {m1}(self, {b}):
        """Remember the old number, then add {b}."""
        self.{r}.append(self.{t})
        self.{t} += {b}
    def {m2}(self):
        """Go back to the number before the last change; return False if there is none."""
        if not self.{r}:
            return False
        self.{t} = self.{r}.pop()
        return True
    def {m3}(self):
        """Return the number and how many changes can be undone."""
        return [self.{t}, len(self.{r})]
''',
    ),
    ClassTemplate(
        init="{i}",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m1}({i})"),
        code='''
class {f}:
    """Ring that keeps the newest {K} numbers, first {a}."""
    def __init__(self, {a}):
        self.{t} = [{a}]
    def {m1}(self, {b}):
        """Add {b} and drop the oldest number if there are more than {K}; return the count."""
        self.{t}.append({b})
        if len(self.{t}) > {K}:
            self.{t}.pop(0)
        return len(self.{t})
    def {m2}(self):
        """Forget all numbers but the newest."""
        self.{t} = self.{t}[-1:]
    def {m3}(self):
        """Return the numbers, newest first."""
        return self.{t}[::-1]
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m2}()"),
        code='''
class {f}:
    """Queue that serves the largest number first."""
    def __init__(self):
        self.{t} = []
    def {m1}(self, {b}):
        """Add {b} and keep the largest number at the front."""
        self.{t}.append({b})
        self.{t}.sort(reverse=True)
    def {m2}(self):
        """Remove and return the largest number, or {J} if it is empty."""
        if len(self.{t}) == 0:
            return {J}
        return self.{t}.pop(0)
    def {m3}(self):
        """Return a copy of the waiting numbers."""
        return list(self.{t})
''',
    ),
    ClassTemplate(
        init="{i}",
        steps=("{o}.{m1}({i})", "{o}.{m2}()", "{o}.{m1}({i})"),
        checks=("{o}.{m3}()", "{o}.{m1}({i})"),
        code='''
class {f}:
    """Bucket for {a} plus {M} units that leaks {K} units at a time."""
    def __init__(self, {a}):
        self.{t} = 0
        self.{r} = {a} + {M}
    def {m1}(self, {b}):
        """Pour {b} in if it fits; tell whether it did."""
        if self.{t} + {b} > self.{r}:
            return False
        self.{t} += {b}
        return True
    def {m2}(self):
        """Leak {K} units, never below zero."""
        self.{t} = max(self.{t} - {K}, 0)
    def {m3}(self):
        """Return the free room."""
        return self.{r} - self.{t}
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}('{w}')", "{o}.{m1}('{w}')", "{o}.{m2}('{w}')"),
        checks=("{o}.{m3}()", "{o}.{t}"),
        code='''
class {f}:
    """Votes by name; a name that loses all its votes is removed."""
    def __init__(self):
        self.{t} = {{}}
    def {m1}(self, {a}):
        """Count one vote for {a}."""
        self.{t}[{a}] = self.{t}.get({a}, 0) + 1
    def {m2}(self, {a}):
        """Take one vote of {a} back; do nothing without votes."""
        if {a} not in self.{t}:
            return
        self.{t}[{a}] -= 1
        if self.{t}[{a}] == 0:
            del self.{t}[{a}]
    def {m3}(self):
        """Return the sorted names with at least {K} votes."""
        return sorted([{x} for {x} in self.{t} if self.{t}[{x}] >= {K}])
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m2}()"),
        code='''
class {f}:
    """Average of marks; the lowest mark is ignored once there are {K} or more."""
    def __init__(self):
        self.{t} = []
    def {m1}(self, {b}):
        """Store {b}, but at most {M}."""
        self.{t}.append(min({b}, {M}))
    def {m2}(self):
        """Return the marks that count."""
        {x} = sorted(self.{t})
        if len({x}) >= {K}:
            {x} = {x}[1:]
        return {x}
    def {m3}(self):
        """Return the whole-number average of the marks that count, or {J} without marks."""
        {x} = self.{m2}()
        if not {x}:
            return {J}
        return sum({x}) // len({x})
''',
    ),
    ClassTemplate(
        init="{i}, {i}",
        steps=("{o}.{m1}({i})", "{o}.{m2}({i})"),
        checks=("{o}.{m3}()", "{o}.{m4}()"),
        code='''
class {f}:
    """Point that starts at {a}, {b} and counts its moves."""
    def __init__(self, {a}, {b}):
        self.{t} = {a}
        self.{r} = {b}
        self.{x} = 0
    def {m1}(self, {a}):
        """Move {a} to the right."""
        self.{t} += {a}
        self.{x} += 1
    def {m2}(self, {b}):
        """Move {b} up, but not above {M}."""
        self.{r} = min(self.{r} + {b}, {M})
        self.{x} += 1
    def {m3}(self):
        """Return the position as a list."""
        return [self.{t}, self.{r}]
    def {m4}(self):
        """Return the number of moves times {K}."""
        return self.{x} * {K}
''',
    ),
)
