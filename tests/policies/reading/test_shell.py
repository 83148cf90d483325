"""Reading shell commands by their look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.policies.reading.shell import View, command_effect
from leyline.policies.reading.testruns import SuiteRun

VIEWS = {
    "cat a.py": View("a.py"),
    "cat -n ./src/../a.py": View("a.py"),
    "nl -ba a.py | sed -n '10,20p'": View("a.py", 10, 20),
    "sed -n '5p' a.py": View("a.py", 5, 5),
    "sed -n '5,$p' a.py": View("a.py", 5, None),
    "head -n 30 a.py": View("a.py", 1, 30),
    "head -30 a.py": View("a.py", 1, 30),
    "head a.py": View("a.py", 1, 10),
    "sed -n '101,200p' a.py | head -n 20": View("a.py", 101, 120),
    "cd src && cat b/a.py": View("src/b/a.py"),
    "cd src; cat a.py": View("src/a.py"),
    "# look\ncat a.py": View("a.py"),
    "timeout 5 cat a.py": View("a.py"),
    "cat a.py 2>/dev/null": View("a.py"),
    "cat a.py 2>&1 >&2": View("a.py"),
    "head -q --lines=7 a.py": View("a.py", 1, 7),
    "head -n7 a.py | head -3": View("a.py", 1, 3),
    "cat a.py > /dev/null": None,
    "cat a.py 1>/dev/null": None,
    "cat a.py &> /dev/null": None,
    "cat a.py >& /dev/null": None,
    "cat a.py >&-": None,
    "cat a.py | head -3 > /dev/null": None,
    "head -c 20 a.py": None,
    "head --bytes=20 a.py": None,
    "head -n -5 a.py": None,
    "head -n 5 a.py b.py": None,
    "head -n 11111111111 a.py": None,
    "sed -n '11111111111p' a.py": None,
    "cat a.py | grep x": None,
    "cat a.py b.py": None,
    "cat a.py && cat b.py": None,
    "sed -n '/def f/,/return/p' a.py": None,
    "tail a.py": None,
    "cat > a.py": None,
    "grep x a.py": None,
    "cat 'unclosed": None,
    "": None,
}
EDITS = {
    "sed -i 's/a/b/' a.py b.py": {"a.py", "b.py"},
    "sed -i -e 's/a/b/' a.py": {"a.py"},
    "cat <<'EOF' > a.py\nrm b.py\nEOF": {"a.py"},
    "cat > a.py <<EOF\nx > y\nEOF\npython a.py": {"a.py"},
    "echo x >> d/a.py": {"d/a.py"},
    "echo x | tee a.py": {"a.py"},
    "cp a.py b.py": {"b.py"},
    "mv a.py b.py": {"a.py", "b.py"},
    "cd d && rm -rf a.py": {"d/a.py"},
    "git checkout -- a.py": {"a.py"},
    "python x.py > /dev/null 2>&1": set(),
    "echo x &> a.py": {"a.py"},
    "echo x &>> a.py": {"a.py"},
    "echo x >| a.py": {"a.py"},
    "echo x >& a.py": {"a.py"},
    "echo x >&2": set(),
    "cat a.py": set(),
}
RUNS = {
    "pytest": SuiteRun("pytest"),
    "python -m pytest tests/a.py -q": SuiteRun("pytest", frozenset({"tests/a.py"})),
    "python3 -m unittest a.b": SuiteRun("unittest", frozenset({"a.b"})),
    "PYTHONPATH=. tox -e py311": SuiteRun("tox", frozenset({"py311"})),
    "cd tests && ./runtests.py admin | tail -20": SuiteRun("runtests.py", frozenset({"admin"}), directory="tests"),
    "cd a && cd ../b; pytest": SuiteRun("pytest", directory="b"),
    "pytest a.py -k 'x and y'": SuiteRun("pytest", frozenset({"a.py"}), frozenset({"-k x and y"})),
    "pytest -kx a.py -m=slow -xvs": SuiteRun("pytest", frozenset({"a.py"}), frozenset({"-k x", "-m slow", "-x"})),
    "./bin/test a": SuiteRun("bin/test", frozenset({"a"})),
    "python manage.py test app": SuiteRun("manage.py", frozenset({"app"})),
    "make test": SuiteRun("make"),
    "sed -i s/a/b/ a.py && pytest": SuiteRun("pytest"),
    "pytest a.py 2>&1 | tee log": SuiteRun("pytest", frozenset({"a.py"})),
    "pytest a.py --lf": SuiteRun("pytest", frozenset({"a.py"}), whole=False),
    "pytest --ignore=b --deselect b::c a.py": SuiteRun("pytest", frozenset({"a.py"}), whole=False),
    "go test ./a -run X": SuiteRun("go", frozenset({"./a"}), whole=False),
    "pytest a.py > log 2>&1": SuiteRun("pytest", frozenset({"a.py"}), whole=False),
    "pytest a.py | grep FAILED": SuiteRun("pytest", frozenset({"a.py"}), whole=False),
    "pytest a -k x; pytest b -k x -m y": SuiteRun("pytest", frozenset("ab"), frozenset({"-k x"}), whole=False),
    "pytest a.py && pytest": SuiteRun("pytest", whole=False),
    "pytest a.py && tox": None,
    "git diff && pytest": None,
    "cat a.py && pytest": None,
    "pytest --version": None,
    "test -f a.py": None,
    "python repro.py": None,
}


@pytest.mark.parametrize("command", VIEWS)
def test_views(command):
    assert command_effect(command).view == VIEWS[command]


@pytest.mark.parametrize("command", EDITS)
def test_edits(command):
    assert command_effect(command).edited == EDITS[command]


@pytest.mark.parametrize("command", RUNS)
def test_runs(command):
    assert command_effect(command).tests == RUNS[command]


def test_covering():
    assert View("a", 1, None).covers(View("a", 5, 9))
    assert not View("a", 1, 8).covers(View("a", 5, 9))
    assert not View("a", 1, 8).covers(View("a", 5, None))
    assert not View("b").covers(View("a"))
    assert SuiteRun("pytest").covers(SuiteRun("pytest", frozenset({"a"}), frozenset({"-k a"})))
    assert not SuiteRun("pytest", frozenset({"a"})).covers(SuiteRun("pytest"))
    assert not SuiteRun("pytest", select=frozenset({"-k a"})).covers(SuiteRun("pytest"))
    assert not SuiteRun("tox").covers(SuiteRun("pytest"))


PARTIAL = [
    "--lf",
    "--last-failed",
    "--ff",
    "--failed-first",
    "--sw",
    "--stepwise",
    "--co",
    "--collect-only",
    "--deselect a.py::test_b",
    "--deselect=a.py::test_b",
    "--ignore a.py",
    "--ignore=a.py",
    "--ignore-glob=*.py",
    "-run X",
    "-run=X",
    "> log",
    "> /dev/null",
    "2>&1 > /dev/null",
    "1> log",
    ">> log 2>&1",
    "&> log",
    "&>> log",
    ">& log",
    "| grep x",
    "2>&1 | egrep x | tail -3",
    "| head -3",
    "| tail -3 > log",
]
NARROWER = ["-k x", "-kx", "-m x", "-x", "-vx", "--exitfirst", "--maxfail=1", "--maxfail 1", "--failfast"]


def run_of(command):
    run = command_effect(command).tests
    assert run is not None
    return run


@pytest.mark.parametrize("option", PARTIAL)
def test_a_run_that_leaves_something_out_covers_nothing(option):
    part = run_of(f"pytest a.py {option}")
    assert not part.covers(run_of("pytest a.py"))
    assert not part.covers(part)
    assert run_of("pytest a.py").covers(part)


@pytest.mark.parametrize("option", NARROWER)
def test_a_selected_run_covers_only_what_is_selected_at_least_as_much(option):
    part = run_of(f"pytest {option}")
    assert part.covers(part)
    assert run_of("pytest -q --tb=short 2>&1 | tail -40").covers(part)
    assert part.covers(run_of(f"pytest {option} -k other a.py")) == (option not in ("-k x", "-kx", "--maxfail 1"))
    assert not part.covers(run_of("pytest"))
    assert not run_of("pytest -k third").covers(part)


def test_the_directory_is_part_of_a_run():
    assert not run_of("cd other && pytest a.py").covers(run_of("pytest a.py"))
    assert not run_of("pytest").covers(run_of("cd other && pytest"))
    assert run_of("cd ./other/; pytest").covers(run_of("cd other && pytest a.py"))
    assert run_of("cd . && pytest").covers(run_of("pytest"))


@pytest.mark.parametrize(
    ("command", "edited"),
    [
        ("cat <<-'EOF' > a.py\nrm b.py\n\tEOF\nrm c.py", {"a.py", "c.py"}),
        ('cat << "A" > a.py; cat <<B > b.py\nrm c.py\nA\nrm d.py\nB\nrm e.py', {"a.py", "b.py", "e.py"}),
        ("cat <<EOF > a.py\nx <<EOF\nEOF\nrm b.py\nEOF", {"a.py", "b.py"}),
        ("cat <<EOF\nrm b.py", {"b.py"}),
        ("cat <<<EOF\nrm b.py\nEOF", {"b.py"}),
    ],
)
def test_the_body_of_a_heredoc_is_no_command(command, edited):
    assert command_effect(command).edited == edited


@pytest.mark.parametrize(
    "body", ["    std::cout << value << std::endl;\n", "x = 1\n", "<<A <<B", "<<EOF" + " " * 99, "<<'EOF", "\n"]
)
def test_long_commands_with_a_heredoc_that_does_not_end(body):
    command = "sed -i s/a/b/ a.py && cat <<END\n" + body * (200_000 // len(body))
    assert command_effect(command).edited <= {"a.py"}


@given(st.text(alphabet="catsedpy -n'\"|&;<>\n$(){}\\#09,.EOF", max_size=60))
def test_any_text_is_read_without_error(command):
    effect = command_effect(command)
    assert effect.view is None or not effect.edited
