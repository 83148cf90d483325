"""Small classes with three methods and a field."""

from __future__ import annotations

from leyline.suites.micro.families.dsl import ClassTemplate

CLASSES = (
    ClassTemplate(
        init="{i}",
        steps=("{o}.{m1}({i})", "{o}.{m2}({i})"),
        checks=("{o}.{m3}()",),
        code='''
class {f}:
    """Account that starts with {a} and charges {J} for each {m2}."""
    def __init__(self, {a}):
        self.{t} = {a}
    def {m1}(self, {b}):
        """Add {b} to the balance."""
        self.{t} += {b}
    def {m2}(self, {b}):
        """Take {b} and the charge of {J} off; refuse if {b} is above the balance."""
        if {b} > self.{t}:
            return False
        self.{t} -= {b} + {J}
        return True
    def {m3}(self):
        """Return the balance."""
        return self.{t}
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m2}()"),
        code='''
class {f}:
    """Stack of at most {K} items."""
    def __init__(self):
        self.{t} = []
    def {m1}(self, {b}):
        """Put {b} on top unless {K} items are there."""
        if len(self.{t}) >= {K}:
            return False
        self.{t}.append({b})
        return True
    def {m2}(self):
        """Remove and return the top item, or None."""
        if not self.{t}:
            return None
        return self.{t}.pop()
    def {m3}(self):
        """Return the number of items."""
        return len(self.{t})
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}('{w}', {i})", "{o}.{m1}('{w}', {i})", "{o}.{m2}('{w}', {i})"),
        checks=("{o}.{m3}()", "{o}.{t}"),
        code='''
class {f}:
    """Stock of named goods."""
    def __init__(self):
        self.{t} = {{}}
    def {m1}(self, {a}, {b}):
        """Add {b} pieces of {a}."""
        self.{t}[{a}] = self.{t}.get({a}, 0) + {b}
    def {m2}(self, {a}, {b}):
        """Take {b} pieces of {a}, but never more than there are."""
        {r} = min({b}, self.{t}.get({a}, 0))
        self.{t}[{a}] = self.{t}.get({a}, 0) - {r}
        return {r}
    def {m3}(self):
        """Return the number of pieces of all goods."""
        return sum(self.{t}.values())
''',
    ),
    ClassTemplate(
        init="{i}",
        steps=("{o}.{m1}()", "{o}.{m1}()", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{t}"),
        code='''
class {f}:
    """Dial that starts at {a}, moves in steps of {K} and stays within 0 and {M}."""
    def __init__(self, {a}):
        self.{t} = {a}
    def {m1}(self):
        """Move up one step, at most to {M}."""
        self.{t} = min(self.{t} + {K}, {M})
    def {m2}(self):
        """Move down one step, at least to 0."""
        self.{t} = max(self.{t} - {K}, 0)
    def {m3}(self):
        """Tell whether the dial is at {M}."""
        return self.{t} == {M}
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m1}({i})"),
        checks=("{o}.{m2}()", "{o}.{m3}()"),
        code='''
class {f}:
    """Collect readings; readings above {M} are counted as errors and dropped."""
    def __init__(self):
        self.{t} = []
        self.{r} = 0
    def {m1}(self, {b}):
        """Store {b}, or count an error if it is above {M}."""
        if {b} > {M}:
            self.{r} += 1
            return
        self.{t}.append({b})
    def {m2}(self):
        """Return the largest reading plus the errors, or {J} without readings."""
        if not self.{t}:
            return {J}
        return max(self.{t}) + self.{r}
    def {m3}(self):
        """Return the readings in reverse order."""
        return self.{t}[::-1]
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m2}()"),
        checks=("{o}.{m2}()", "{o}.{m3}()"),
        code='''
class {f}:
    """First-in first-out queue that also counts what was served."""
    def __init__(self):
        self.{t} = []
        self.{r} = 0
    def {m1}(self, {b}):
        """Add {b} at the end."""
        self.{t}.append({b})
    def {m2}(self):
        """Serve the first item, or return {J} if nothing waits."""
        if len(self.{t}) == 0:
            return {J}
        self.{r} += 1
        return self.{t}.pop(0)
    def {m3}(self):
        """Return how many items were served plus how many wait."""
        return self.{r} + len(self.{t})
''',
    ),
)
