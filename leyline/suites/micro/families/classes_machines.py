"""Class families: lists by name, phases, machines with several states.

They follow the families of `classes_more`.
"""

from __future__ import annotations

from leyline.suites.micro.families.dsl import ClassTemplate

CLASSES = (
    ClassTemplate(
        init="",
        steps=("{o}.{m1}('{w}', {i})", "{o}.{m1}('{w}', {i})", "{o}.{m2}('{w}')"),
        checks=("{o}.{m3}('{w}')", "{o}.{t}"),
        code='''
class {f}:
    """Lists of numbers by name."""
    def __init__(self):
        self.{t} = {{}}
    def {m1}(self, {a}, {b}):
        """Add {b} to the list of {a} unless it is already in it."""
        {x} = self.{t}.setdefault({a}, [])
        if {b} not in {x}:
            {x}.append({b})
    def {m2}(self, {a}):
        """Remove the last number of {a}, and {a} itself when nothing is left."""
        if {a} in self.{t}:
            self.{t}[{a}].pop()
            if not self.{t}[{a}]:
                del self.{t}[{a}]
    def {m3}(self, {a}):
        """Return the sum of the numbers of {a}, or {J} if it is unknown."""
        if {a} not in self.{t}:
            return {J}
        return sum(self.{t}[{a}])
''',
    ),
    ClassTemplate(
        init="{i}",
        steps=("{o}.{m1}()", "{o}.{m1}()", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{t}"),
        code='''
class {f}:
    """Traffic light: each phase lasts {K} ticks, phases are 0, 1 and 2; the first tick count is {a} modulo {K}."""
    def __init__(self, {a}):
        self.{t} = 0
        self.{r} = {a} % {K}
    def {m1}(self):
        """Count one tick; after {K} ticks go to the next phase and start counting at 0."""
        self.{r} += 1
        if self.{r} >= {K}:
            self.{r} = 0
            self.{t} = (self.{t} + 1) % 3
    def {m2}(self):
        """Jump to phase 2 and start counting at 0."""
        self.{t} = 2
        self.{r} = 0
    def {m3}(self):
        """Return how many ticks are left in this phase."""
        return {K} - self.{r}
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i}, {i})", "{o}.{m1}({i}, {i})", "{o}.{m2}({i})"),
        checks=("{o}.{m3}()", "{o}.{m2}({i})"),
        code='''
class {f}:
    """Bookings from a start to an end; the end itself is free again."""
    def __init__(self):
        self.{t} = []
    def {m1}(self, {a}, {b}):
        """Book from {a} to {b} if that is not empty and overlaps nothing; tell whether it worked."""
        if {a} >= {b}:
            return False
        for {x}, {r} in self.{t}:
            if {a} < {r} and {x} < {b}:
                return False
        self.{t}.append([{a}, {b}])
        return True
    def {m2}(self, {a}):
        """Tell whether {a} is booked."""
        return any({x} <= {a} and {a} < {r} for {x}, {r} in self.{t})
    def {m3}(self):
        """Return the total booked time."""
        return sum({r} - {x} for {x}, {r} in self.{t})
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}('{w}')", "{o}.{m1}('{w}')", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m2}()"),
        code='''
class {f}:
    """Text editor with a cursor at the end of its text."""
    def __init__(self):
        self.{t} = ''
        self.{r} = 0
    def {m1}(self, {a}):
        """Type {a} and count the typed characters."""
        self.{t} = self.{t} + {a}
        self.{r} += len({a})
    def {m2}(self):
        """Delete the last character and return it, or '' if there is none."""
        {x} = self.{t}[-1:]
        self.{t} = self.{t}[:-1]
        return {x}
    def {m3}(self):
        """Return the text in upper case, then ':' and the number of typed characters."""
        return self.{t}.upper() + ':' + str(self.{r})
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}({i})", "{o}.{m1}({i})", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m2}()"),
        code='''
class {f}:
    """Streak of rising numbers."""
    def __init__(self):
        self.{t} = None
        self.{r} = 0
        self.{x} = 0
    def {m1}(self, {b}):
        """Take {b}: the streak grows if it is above the last number, else it starts at 1."""
        if self.{t} is not None and {b} > self.{t}:
            self.{r} += 1
        else:
            self.{r} = 1
        self.{t} = {b}
        self.{x} = max(self.{x}, self.{r})
    def {m2}(self):
        """Return the longest streak so far."""
        return self.{x}
    def {m3}(self):
        """Return the current streak times {K}."""
        return self.{r} * {K}
''',
    ),
    ClassTemplate(
        init="{i}",
        steps=("{o}.{m1}({i})", "{o}.{m2}({i})", "{o}.{m1}({i})"),
        checks=("{o}.{m3}()", "{o}.{t}"),
        code='''
class {f}:
    """Loan of {a}: interest of {K} is added before each payment."""
    def __init__(self, {a}):
        self.{t} = {a}
        self.{r} = 0
    def {m1}(self, {b}):
        """Add the interest if something is owed, then pay {b}, at most what is owed."""
        if self.{t} > 0:
            self.{t} += {K}
        {x} = min({b}, self.{t})
        self.{t} -= {x}
        self.{r} += {x}
    def {m2}(self, {b}):
        """Borrow {b} more, and {J} as a fee."""
        self.{t} += {b} + {J}
    def {m3}(self):
        """Return what was paid and what is owed."""
        return [self.{r}, self.{t}]
''',
    ),
    ClassTemplate(
        init="",
        steps=("{o}.{m1}('{w}', {i})", "{o}.{m1}('{w}', {i})", "{o}.{m2}()"),
        checks=("{o}.{m3}()", "{o}.{m2}()"),
        code='''
class {f}:
    """Scores by player; only the best score of each player counts."""
    def __init__(self):
        self.{t} = {{}}
    def {m1}(self, {a}, {b}):
        """Record {b} for {a} if it beats the old score."""
        if {b} > self.{t}.get({a}, 0):
            self.{t}[{a}] = {b}
    def {m2}(self):
        """Return the player with the best score, the first in the alphabet on ties, or None."""
        {x} = None
        for {a} in sorted(self.{t}):
            if {x} is None or self.{t}[{a}] > self.{t}[{x}]:
                {x} = {a}
        return {x}
    def {m3}(self):
        """Return the sum of all best scores, plus {J} for each player."""
        return sum(self.{t}.values()) + {J} * len(self.{t})
''',
    ),
)
