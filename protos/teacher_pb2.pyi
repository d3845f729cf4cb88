from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]

class TapKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TAP_KIND_UNSPECIFIED: _ClassVar[TapKind]
    TAP_KIND_LOGITS: _ClassVar[TapKind]
    TAP_KIND_PROBABILITIES: _ClassVar[TapKind]
    TAP_KIND_HINT: _ClassVar[TapKind]
    TAP_KIND_TSL: _ClassVar[TapKind]
    TAP_KIND_ATTENTION: _ClassVar[TapKind]
    TAP_KIND_SIGNS: _ClassVar[TapKind]
    TAP_KIND_PRODUCTS: _ClassVar[TapKind]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_INT64: DataType
DATA_TYPE_FLOAT32: DataType
TAP_KIND_UNSPECIFIED: TapKind
TAP_KIND_LOGITS: TapKind
TAP_KIND_PROBABILITIES: TapKind
TAP_KIND_HINT: TapKind
TAP_KIND_TSL: TapKind
TAP_KIND_ATTENTION: TapKind
TAP_KIND_SIGNS: TapKind
TAP_KIND_PRODUCTS: TapKind

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Promise(_message.Message):
    __slots__ = ("epsilon", "delta", "adjacency", "unit", "mode")
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    ADJACENCY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    delta: float
    adjacency: str
    unit: str
    mode: str
    def __init__(self, epsilon: _Optional[float] = ..., delta: _Optional[float] = ..., adjacency: _Optional[str] = ..., unit: _Optional[str] = ..., mode: _Optional[str] = ...) -> None: ...

class Normalisation(_message.Message):
    __slots__ = ("mean", "standard_deviation")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    mean: _containers.RepeatedScalarFieldContainer[float]
    standard_deviation: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, mean: _Optional[_Iterable[float]] = ..., standard_deviation: _Optional[_Iterable[float]] = ...) -> None: ...

class TapDescription(_message.Message):
    __slots__ = ("name", "kind", "shape", "bound", "noise_standard_deviation", "charge", "temperature")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    NOISE_STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    CHARGE_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: TapKind
    shape: _containers.RepeatedScalarFieldContainer[int]
    bound: float
    noise_standard_deviation: float
    charge: int
    temperature: float
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[TapKind, str]] = ..., shape: _Optional[_Iterable[int]] = ..., bound: _Optional[float] = ..., noise_standard_deviation: _Optional[float] = ..., charge: _Optional[int] = ..., temperature: _Optional[float] = ...) -> None: ...

class MethodOffer(_message.Message):
    __slots__ = ("name", "taps", "charge")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TAPS_FIELD_NUMBER: _ClassVar[int]
    CHARGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    taps: _containers.RepeatedScalarFieldContainer[str]
    charge: int
    def __init__(self, name: _Optional[str] = ..., taps: _Optional[_Iterable[str]] = ..., charge: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("teacher_version", "mode", "teachers", "dataset", "classes", "input_name", "input_dtype", "input_shape", "normalisation", "taps", "promise", "budget", "max_samples_per_request", "ledger_public_key", "ledger_id", "ledger_keys", "methods", "taps_by_name")
    TEACHER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TEACHERS_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    INPUT_NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    NORMALISATION_FIELD_NUMBER: _ClassVar[int]
    TAPS_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    MAX_SAMPLES_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    LEDGER_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    LEDGER_ID_FIELD_NUMBER: _ClassVar[int]
    LEDGER_KEYS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    TAPS_BY_NAME_FIELD_NUMBER: _ClassVar[int]
    teacher_version: str
    mode: str
    teachers: int
    dataset: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    input_name: str
    input_dtype: DataType
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    normalisation: Normalisation
    taps: _containers.RepeatedCompositeFieldContainer[TapDescription]
    promise: Promise
    budget: Budget
    max_samples_per_request: int
    ledger_public_key: bytes
    ledger_id: str
    ledger_keys: _containers.RepeatedCompositeFieldContainer[LedgerKey]
    methods: _containers.RepeatedCompositeFieldContainer[MethodOffer]
    taps_by_name: bool
    def __init__(self, teacher_version: _Optional[str] = ..., mode: _Optional[str] = ..., teachers: _Optional[int] = ..., dataset: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., input_name: _Optional[str] = ..., input_dtype: _Optional[_Union[DataType, str]] = ..., input_shape: _Optional[_Iterable[int]] = ..., normalisation: _Optional[_Union[Normalisation, _Mapping]] = ..., taps: _Optional[_Iterable[_Union[TapDescription, _Mapping]]] = ..., promise: _Optional[_Union[Promise, _Mapping]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., max_samples_per_request: _Optional[int] = ..., ledger_public_key: _Optional[bytes] = ..., ledger_id: _Optional[str] = ..., ledger_keys: _Optional[_Iterable[_Union[LedgerKey, _Mapping]]] = ..., methods: _Optional[_Iterable[_Union[MethodOffer, _Mapping]]] = ..., taps_by_name: _Optional[bool] = ...) -> None: ...

class LedgerKey(_message.Message):
    __slots__ = ("public_key", "entry", "endorsement")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    ENDORSEMENT_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    entry: int
    endorsement: bytes
    def __init__(self, public_key: _Optional[bytes] = ..., entry: _Optional[int] = ..., endorsement: _Optional[bytes] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("budget", "spent", "left", "client_cap", "client_spent", "client_left", "epsilon_spent", "epsilon_budget", "draws_left")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CAP_FIELD_NUMBER: _ClassVar[int]
    CLIENT_SPENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_LEFT_FIELD_NUMBER: _ClassVar[int]
    EPSILON_SPENT_FIELD_NUMBER: _ClassVar[int]
    EPSILON_BUDGET_FIELD_NUMBER: _ClassVar[int]
    DRAWS_LEFT_FIELD_NUMBER: _ClassVar[int]
    budget: int
    spent: int
    left: int
    client_cap: int
    client_spent: int
    client_left: int
    epsilon_spent: float
    epsilon_budget: float
    draws_left: int
    def __init__(self, budget: _Optional[int] = ..., spent: _Optional[int] = ..., left: _Optional[int] = ..., client_cap: _Optional[int] = ..., client_spent: _Optional[int] = ..., client_left: _Optional[int] = ..., epsilon_spent: _Optional[float] = ..., epsilon_budget: _Optional[float] = ..., draws_left: _Optional[int] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("request_id", "samples", "taps")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TAPS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    samples: _containers.RepeatedCompositeFieldContainer[Tensor]
    taps: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., samples: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., taps: _Optional[_Iterable[str]] = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("answers", "receipt", "charged_samples")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    CHARGED_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Tensor]
    receipt: bytes
    charged_samples: int
    def __init__(self, answers: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., receipt: _Optional[bytes] = ..., charged_samples: _Optional[int] = ...) -> None: ...

class GetBudgetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetBudgetResponse(_message.Message):
    __slots__ = ("budget", "promise")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    promise: Promise
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ..., promise: _Optional[_Union[Promise, _Mapping]] = ...) -> None: ...

class ListEntriesRequest(_message.Message):
    __slots__ = ("first",)
    FIRST_FIELD_NUMBER: _ClassVar[int]
    first: int
    def __init__(self, first: _Optional[int] = ...) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, lines: _Optional[_Iterable[bytes]] = ...) -> None: ...
