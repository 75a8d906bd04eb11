"""What a profile takes, before it is started: counted in tokens, priced by its own rates, whatever it is."""

import subprocess
import sys

import pytest

from z1lib.pages.plan import make_plan
from z1lib.profile import PROFILES, load_profile


@pytest.mark.parametrize("name", sorted(file.stem for file in PROFILES.glob("*.yaml")))
def test_every_profile_has_a_plan_of_what_it_trains_and_decodes(name):
    profile, plan = load_profile(name), make_plan(load_profile(name))
    trained = plan[plan.stage == "02_sft"]
    assert set(trained["of"]) <= set(profile.sft.runs) - set(profile.model.released)
    assert set(trained["of"]) >= set(profile.inference.models) & set(profile.sft.runs) - set(profile.model.released)
    assert set(profile.inference.models) <= set(plan[plan.stage != "02_sft"]["of"])
    assert (plan["tokens at most"] > 0).all()
    assert (plan["GPU hours"] == plan.hours * profile.hardware.gpus).all()


def test_trainings_and_epochs_are_counted():
    one = load_profile("smoke", sft={"seeds": [0], "epochs": 1, "calibrated": {}}, inference={"pool": {"models": []}})
    more = load_profile(
        "smoke", sft={"seeds": [0, 1], "epochs": 3, "calibrated": {}}, inference={"pool": {"models": []}}
    )
    tokens = [
        make_plan(profile).query("of == 'z1' and stage == '02_sft'")["tokens at most"].item() for profile in (one, more)
    ]
    assert tokens[1] == 6 * tokens[0]


def test_it_is_printed_with_a_price():
    command = [sys.executable, "-m", "z1lib.pages.plan", "paper", "--price", "2"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "paper: 8 GPUs of 80 GiB at least" in said
    assert "price" in said
