"""Which test must notice which fault."""

from tests.planted_faults import faults
from tests.planted_faults.faults import Fault

_NOISE = "tests/privacy/test_noise.py"
_BOUND = "tests/privacy/test_bounding.py"
_DERIVED = "tests/privacy/test_derived_kinds.py"
_GRID = "tests/privacy/test_quantising.py"
_RELEASE = "tests/privacy/test_release.py"
_LEDGER = "tests/privacy/ledger"
_KEY = (
    f"{_LEDGER}/test_settlement.py"
    "::test_the_key_of_an_answer_depends_on_every_part_and_on_the_secret"
)
_STORED = "tests/teacher_server/test_stored_answers.py"
_TRAINING = "tests/teacher_server/training"
_UNITS = "tests/teacher_server/test_units.py"

NOTHING = "nothing"
"""What the control plants."""

FAULTS = {
    "noise scaled by 0.95": Fault(
        faults.noise_too_small, (f"{_NOISE}::test_variance_mean_and_low_bits",)
    ),
    "a seedable generator": Fault(
        faults.noise_from_a_seedable_generator, (f"{_NOISE}::test_no_seed_reaches_the_noise",)
    ),
    "noise reused between two requests": Fault(
        faults.noise_reused,
        ("tests/teacher_server/test_order.py::test_no_two_requests_share_noise",),
    ),
    "charge after send": Fault(
        faults.charge_after_send,
        ("tests/teacher_server/test_order.py::test_what_returns_is_durable_already",),
    ),
    "clip by L-infinity": Fault(
        faults.clip_by_largest_entry,
        (f"{_BOUND}::test_clipping_keeps_the_direction_of_huge_and_denormal_rows",),
    ),
    "a derived tap without a bound": Fault(
        faults.derived_tap_without_a_bound,
        (f"{_DERIVED}::test_no_row_leaves_the_ball_that_is_charged_for",),
    ),
    "no check on the integers": Fault(
        faults.no_check_on_integers, (f"{_GRID}::test_the_integer_check_stands_alone",)
    ),
    "nearest rounding": Fault(
        faults.rounding_to_nearest,
        (f"{_GRID}::test_the_norm_never_exceeds_the_radius", f"{_GRID}::test_no_entry_grows"),
    ),
    "a float32 sum": Fault(
        faults.sum_in_float32, (f"{_RELEASE}::test_the_order_of_teachers_does_not_show_in_any_bit",)
    ),
    "shards overlap by one record": Fault(
        faults.shards_overlap,
        ("tests/ktan/data/test_split.py::test_shards_are_disjoint_whole_and_equal_in_units",),
    ),
    "steps from the number of records": Fault(
        faults.steps_from_records,
        (f"{_UNITS}::test_the_number_of_ones_records_reaches_ones_own_teacher_only",),
    ),
    "counts of records in public": Fault(
        faults.counts_of_records,
        ("tests/ktan/data/test_split.py::test_counts_are_of_units",),
    ),
    "a joint gradient norm across shards": Fault(
        faults.joint_gradient_norm,
        (f"{_TRAINING}/test_ensemble.py::test_the_size_of_one_shard_reaches_its_own_teacher_only",),
    ),
    "a diverged shard changes k": Fault(
        faults.diverged_teacher_leaves_the_mean,
        (f"{_RELEASE}::test_a_diverged_teacher_answers_zero_and_still_counts",),
    ),
    "a diverged shard raises an error": Fault(
        faults.diverged_teacher_raises,
        (f"{_RELEASE}::test_a_diverged_teacher_answers_zero_and_still_counts",),
        notice=r"^\S*:\d+: FloatingPointError: a teacher diverged",
    ),
    "a stored answer served for a changed teacher": Fault(
        faults.answer_of_an_earlier_teacher, (_KEY, f"{_STORED}::test_a_new_teacher_answers_anew")
    ),
    "a stored answer served for a changed setting": Fault(
        faults.answer_of_earlier_settings, (_KEY,)
    ),
    "a stored answer served under another menu": Fault(
        faults.answer_of_another_menu,
        (
            f"{_RELEASE}::test_each_setting_is_part_of_the_key_of_a_stored_answer",
            f"{_STORED}::test_a_changed_tap_is_answered_anew",
        ),
    ),
    "a restored backup that serves on": Fault(
        faults.backup_serves_on,
        (f"{_LEDGER}/test_rollback.py::test_a_restored_backup_opens_exhausted",),
    ),
    "a second ledger for the same data": Fault(
        faults.second_ledger,
        (f"{_LEDGER}/test_creation.py::test_a_second_ledger_for_the_same_data_is_refused",),
    ),
    "the accuracy on private data in the card": Fault(
        faults.accuracy_in_the_card,
        (
            f"{_TRAINING}/test_train.py::test_the_card_tells_nothing_that_private_records_could_change",
        ),
    ),
}
