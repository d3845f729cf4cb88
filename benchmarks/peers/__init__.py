"""Public implementations of the methods, beside ours: students of theirs, values, one table.

    python -m benchmarks.peers --teacher FOLDER --repositories DIR --dataset NAME --epochs 4
    python -m benchmarks.peers.reference_values --repositories DIR
    python -m benchmarks.peers.beside --comparison OUT/comparison.json --peers peers.json

None of their code is a part of this project: torchdistill is installed into an environment of its
own (`pip install --no-deps torchdistill`, pyyaml and cython) that sees this project's packages, and
whose Python runs both commands; repositories are cloned into DIR, a folder each by its own name.

Which implementation stands beside which method, with the options of its own scripts, and what it
does otherwise than the paper:

- soft-logits: torchdistill `KDLoss`, α = 0.1, T = 4. 0.1·CE + 0.9·T²·KL; mdistiller and
  RepDistiller weigh alike.
- fitnet: torchdistill `ConvReg` (1×1 convolution, batch norm, ReLU) after the middle stage and the
  mean squared error, weighed 100 beside the cross-entropy: RepDistiller's and mdistiller's form.
  No soft logits.
- fitnet-two-stage: the same hint alone, then `KDLoss`; the paper's form.
- at: torchdistill `ATLoss`, mode `code`, weight 1000. The weight is not halved, so that its loss is
  twice the paper's β/2 with β = 1000; RepDistiller and mdistiller do the same. Mode `paper` takes
  norms that are not squared.
- ab: torchdistill `AltActTransferLoss`, margin 1, 3e-3·2^(i−n+1), `Connector4DAB` (1×1 convolution,
  batch norm), then cross-entropy. On maps before their activation: the examples of its own
  documentation tap blocks after their ReLU, where no value of the teacher's is negative.
  RepDistiller's `ABLoss` is the same function, with connectors only where widths differ.
- fsp: Knowledge-Distillation-Zoo `FSP`, from the stem to the last stage, then cross-entropy. The
  same function as RepDistiller's (average pooling, squared error), which makes the tensor
  [B, c, c', h·w]. torchdistill's `FSPLoss` is another: maximum pooling, norms of columns.
- kd-svd: RepDistiller `KDSVD`, k = 1, weight 1. Its gradient goes through `torch.svd`, is no number
  where two singular values are equal (two dead channels), and the training ends within some steps:
  recorded as `diverged_at_step`. It keeps the signs that LAPACK gives, on which the relation
  between two taps depends, and does not clip the gradient.
- kd-svd-finite: the same with gradients that are no number made zero; the peer that can be trained.
- kd-svd-mdistiller: mdistiller `kdsvd_loss`, which unfolds to (c·h) × w: another method.
- dkd: mdistiller `dkd_loss`, α = 1, β = 8, T = 4, with its warm-up over 20 of 240 epochs' steps.
- byot: pytorch-be-your-own-teacher, `branchBottleNeck` behind all stages but the last, α = 0.1,
  T = 3, 1e-6. Features are compared after pooling, and where both are at most 0 they are left out.
- meal: AaronHeee's MEAL, cross-entropy with the teacher's softened output and the discriminator on
  logits, one teacher, no labels. Student and discriminator go down one loss in one optimiser, so
  that the student helps its opponent; the discriminator's output passes a ReLU. Its option for a
  reversed gradient is off in its scripts, and no longer runs (a `Function` without static methods).

KTAN, KSANC and RONA have no peer here: no public implementation that can be run was found.
KD_methods_with_TF (soft logits, FitNet, AT, AB, FSP, KD-SVD) is written for TensorFlow 1, which no
supported Python runs.
"""
