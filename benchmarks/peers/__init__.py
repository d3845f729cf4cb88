"""Public implementations of the methods, beside ours: values for tests, and students of theirs.

    python -m benchmarks.peers.reference_values --repositories DIR

Which implementation stands beside which method, with its options, and what it does otherwise than
the paper or than ours (`ktan.methods`):

| method | peer | differences |
|---|---|---|
| soft-logits | torchdistill `KDLoss`, α = 0.1, T = 4 | none: 0.1·CE + 0.9·T²·KL |
| fitnet | torchdistill `ConvReg`, mean squared error after layer 2, weight 100 | RepDistiller's one-stage form: 1×1 convolution, batch norm and ReLU; no soft logits |
| at | torchdistill `ATLoss`, mode `code`, weight 1000 | the weight is not halved; mode `paper` takes norms that are not squared |
| ab | torchdistill `AltActTransferLoss`, margin 1, 3e-3·2^(i−n+1); on maps before their activation | its own examples tap blocks after their ReLU, where no teacher's value is negative: the bug that METHODS.md names. RepDistiller's `ABLoss` is the same function, and needs no connector where widths agree |
| fsp | RepDistiller `FSP`, stem to layer 3 | average pooling, squared error. torchdistill's `FSPLoss` pools by maxima and sums the norms of columns |
| kd-svd | RepDistiller `KDSVD`, k = 1, weight 1 | the sign of a singular vector is what LAPACK gives, so the relation between two taps can flip from sample to sample; its gradient passes through `torch.svd`, which is infinite where singular values meet. mdistiller's `kdsvd_loss` unfolds to (c·h) × w: another method |
| dkd | mdistiller `dkd_loss`, α = 1, β = 8, T = 4 | its warm-up is 20 of 240 epochs |
| byot | luanyunteng/pytorch-be-your-own-teacher, `train.py` and `branchBottleNeck` | features are compared pooled; values where both are at most 0 are left out |
| meal | AaronHeee/MEAL, cross-entropy on the last stage, one teacher | the student descends the discriminator's loss instead of climbing it, with the discriminator, in one optimiser; the discriminator ends in a ReLU. Its `--grl` is off, and no longer runs: a `Function` without static methods |

KTAN, KSANC and RONA have no peer: no public implementation of the first two was found, and RONA's
trains another student by other accounting, under TensorFlow 1. KD_methods_with_TF (soft logits,
FitNet, AT, AB, FSP, KD-SVD) is TensorFlow 1, too, which no supported Python runs.
"""  # noqa: E501
