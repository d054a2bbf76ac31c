import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The demo sets these for itself; nobody else should.
OF_THE_DEMO = {"CLOCK_FILE", "DEMO_CODE"}


def test_the_example_lists_every_setting_that_the_environment_may_give() -> None:
    read = set(re.findall(r'env(?:\.\w+)?\(\s*"(\w+)"', (ROOT / "config/settings.py").read_text()))
    listed = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert read - OF_THE_DEMO == listed
