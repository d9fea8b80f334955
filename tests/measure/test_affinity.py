import pytest

from edgelathe.core.device import Probe
from edgelathe.core.errors import UserError
from edgelathe.measure.affinity import cpus, ranges

ROCK = [
    {"name": "Cortex-A76", "cpus": [4, 5, 6, 7], "max_khz": 2304000},
    {"name": "Cortex-A55", "cpus": [0, 1, 2, 3], "max_khz": 1800000},
]
PI = [{"name": "Cortex-A72", "cpus": [0, 1, 2, 3], "max_khz": 1800000}]


def probe(clusters, cores: int = 8) -> Probe:
    return Probe("cam", "aarch64", "cpu", cores, 1, "3.11.2", (), emulated=False, extra={"clusters": clusters})


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("big", (4, 5, 6, 7)), ("little", (0, 1, 2, 3)), ("cortex-a76", (4, 5, 6, 7)), (" Big ", (4, 5, 6, 7)),
        ("0-1,6", (0, 1, 6)), ("3", (3,)), ("6,4-5,4", (4, 5, 6)),
    ],
)  # fmt: skip
def test_kinds_names_and_numbers(text, numbers):
    assert cpus(text, probe(ROCK)) == numbers


def test_three_kinds_have_a_biggest_and_a_smallest():
    three = [{"name": "Cortex-X3", "cpus": [7], "max_khz": 3}, *ROCK]
    assert (cpus("big", probe(three)), cpus("little", probe(three))) == ((7,), (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("text", "clusters", "words"),
    [
        ("huge", ROCK, "choose from big, little, Cortex-A76, Cortex-A55, numbers as 0-3,6"),
        ("big", PI, "cores of one kind; name CPUs by number"),
        ("Cortex-A73", PI, "choose from Cortex-A72"),
        ("8", ROCK, "cam has no CPU 8; its CPUs are 0-7"),
        ("0-99999999999", ROCK, "cam has 8 CPUs"),
        ("3-1", ROCK, "an empty range"),
        ("", ROCK, "choose from"),
        ("0,,1", ROCK, "no such cores"),
        ("-1", ROCK, "no such cores"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(text, clusters, words):
    with pytest.raises(UserError) as e:
        cpus(text, probe(clusters))
    assert words in str(e.value)


def test_a_device_that_names_no_kinds_has_its_number_of_cpus():
    assert cpus("0-3", probe([], cores=4)) == (0, 1, 2, 3)
    with pytest.raises(UserError, match="no CPU 4"):
        cpus("4", probe([], cores=4))


def test_a_cpu_that_is_off_cannot_be_chosen():
    orin = [{"name": "Cortex-A78AE", "cpus": [0, 1, 2, 3, 5], "max_khz": 1510400}]
    with pytest.raises(UserError, match="its CPUs are 0-3,5"):
        cpus("4", probe(orin))
    assert ranges({5, 0, 1, 7, 8}) == "0-1,5,7-8"
