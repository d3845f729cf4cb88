"""The audit of a mechanism as text: every figure with its unit and what it is measured against."""

from privacy.audit.mechanism.report import Audit


def audit_text(audit: Audit) -> str:
    """The table of cases, the checks, and the verdict."""
    lines = [
        f"lower bounds on μ, all together at {audit.confidence:.4g} confidence; claims by the "
        "receipts' integer charges",
        "",
        f"{'case':<28}{'trials a side':>14}{'samples each':>14}{'claimed μ':>11}"
        f"{'μ seen':>9}{'μ at least':>12}{'to be shown':>13}",
    ]
    for case in audit.judged:
        trials = case.trials
        lines.append(
            f"{case.name:<28}{trials.mistakes.trials:>14,}{trials.per_trial:>14,}"
            f"{trials.claim:>11.4f}{case.estimate:>9.4f}{case.lower:>12.4f}"
            f"{case.least:>13.4f}  {'FAIL' if case.fault else 'pass'}"
        )
    lines += ["", f"{'check of the noise and of the charges':<52}{'figure':>12}{'limit':>12}"]
    lines += [
        f"{check.name:<52}{check.figure:>12.5g}{check.limit:>12.5g}  "
        f"{'pass' if check.holds else 'FAIL'}  {check.unit}"
        + (f"; {check.detail}" if check.detail else "")
        for check in audit.checks
    ]
    lines += [
        f"each check rejects the right noise with probability {audit.check_alpha:g}",
        "",
        f"{audit.samples:,} samples asked, {audit.seconds:.0f} s",
    ]
    lines += [f"FAIL  {fault}" for fault in audit.faults]
    if audit.inconclusive is not None:
        lines.append(f"inconclusive: {audit.inconclusive}. Nothing failed, which proves little")
    elif not audit.faults:
        lines.append("pass  the service leaks what it charges for, and no more that could be seen")
    return "\n".join(lines)
