"""What a SavedModel's graph consists of, read without TensorFlow.

A SavedModel is a program of TensorFlow operations. Some of them write files, call Python or talk
to other machines, and new ones come with each release, so the check knows what may be there: what
the inference of a convolutional network needs. Field numbers are those of TensorFlow's
``saved_model.proto``, ``meta_graph.proto``, ``graph.proto`` and ``function.proto``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Arithmetic, shapes, variables and calls: nothing here reads, writes or opens anything. Found in
#: exports of Keras 3 and Keras 2 (U-Nets and residual U-Nets with the layers that such networks
#: use), with the closest relatives of each.
OPERATIONS = frozenset(
    """
    Abs Add AddN AddV2 All Any ArgMax ArgMin BatchMatMulV2 BatchToSpaceND BiasAdd BiasAddV1
    BroadcastTo Cast Ceil ClipByValue Concat ConcatV2 Const Conv2D Conv2DBackpropInput Conv3D
    Conv3DBackpropInputV2 DepthwiseConv2dNative DepthToSpace Div DivNoNan Einsum Elu Equal Erf
    Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2
    FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN If Inv
    Invert IsFinite IsNan L2Loss LeakyRelu Less LessEqual LinSpace Log Log1p LogicalAnd
    LogicalNot LogicalOr LogSoftmax MatMul Max MaxPool MaxPool3D MaxPoolV2 Maximum Mean Merge
    Min Minimum MirrorPad Mod Mul MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 Pow
    Prod Range Rank RealDiv Reciprocal Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor
    ReverseV2 Round Rsqrt Select SelectV2 Selu Shape ShapeN Sigmoid Sign Size Slice Softmax
    Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference
    Squeeze StatelessIf StatelessWhile StopGradient StridedSlice Sub Sum Switch Tanh Tile TopKV2
    Transpose TruncateDiv Unpack Where While Xdivy ZerosLike AvgPool AvgPool3D PartitionedCall
    StatefulPartitionedCall Placeholder PlaceholderWithDefault VarHandleOp VarIsInitializedOp
    ReadVariableOp AssignVariableOp AssignAddVariableOp AssignSubVariableOp ResourceGather
    DisableCopyOnRead VariableShape RandomStandardNormal RandomUniform RandomUniformInt
    TruncatedNormal StatelessRandomGetKeyCounter StatelessRandomNormalV2 StatelessRandomUniform
    StatelessRandomUniformV2 StatelessTruncatedNormalV2 Assert EnsureShape
    """.split()  # noqa: SIM905  a list of names reads better wrapped
)
#: What Keras's two functions for the variables' files need on top of that.
SAVER_OPERATIONS = frozenset(
    {
        'MergeV2Checkpoints',
        'RestoreV2',
        'SaveV2',
        'ShardedFilename',
        'StaticRegexFullMatch',
        'StringJoin',
    }
)


@dataclass(frozen=True)
class _Function:
    """A function of the graph's library: its name, operations, and the bytes that define it."""

    name: bytes
    operations: frozenset[str]
    content: bytes


def forbidden_operations(content: bytes) -> list[str]:
    """List what in a SavedModel's graph the inference of a network does not need.

    Parameters
    ----------
    content : bytes
        Of ``saved_model.pb``.

    Returns
    -------
    list of str
        Names of operations, sorted. Every export has functions that write and read the
        variables' files; their operations are listed only where something besides the bare
        graph, which no loader here runs, refers to such a function.

    Raises
    ------
    ValueError
        If this is no SavedModel.
    """
    found: set[str] = set()
    graphs = [graph for number, graph in _fields(content) if number == 2]
    if not graphs:
        msg = 'it holds no graph'
        raise ValueError(msg)
    for graph in graphs:
        found |= _forbidden(graph, alone=len(graphs) == 1)
    return sorted(found)


def _forbidden(meta_graph: bytes, *, alone: bool) -> set[str]:
    """Check one MetaGraphDef; ``alone`` when it is the only one."""
    functions: list[_Function] = []
    bare: set[str] = set()
    objects = []
    for number, value in _fields(meta_graph):
        if number == 7:
            objects.append(value)
        elif number == 2:
            bare |= set(_operations(value, 1))
            libraries = [item for field, item in _fields(value) if field == 2]
            for library in libraries:
                functions += [_function(item) for field, item in _fields(library) if field == 1]
    found = bare - OPERATIONS
    for function in functions:
        extra = function.operations - OPERATIONS
        # Without an object graph TensorFlow falls back to running the bare graph
        saver = objects and alone and extra <= SAVER_OPERATIONS
        if extra and not (saver and not _is_referred_to(function, functions, objects)):
            found |= extra
    return found


def _is_referred_to(function: _Function, functions: list[_Function], objects: list[bytes]) -> bool:
    """Tell whether another function or an object of the model names this one."""
    others = [item.content for item in functions if item is not function]
    return not function.name or any(function.name in text for text in (*others, *objects))


def _function(content: bytes) -> _Function:
    names = [
        name
        for number, signature in _fields(content)
        if number == 1
        for field, name in _fields(signature)
        if field == 1
    ]
    # Whoever gives two names is looked at by none
    name = names[0] if len(names) == 1 else b''
    return _Function(name, frozenset(_operations(content, 3)), content)


def _operations(content: bytes, field: int) -> Iterator[str]:
    """Operations of the nodes in a message."""
    for number, node in _fields(content):
        if number == field:
            for own, value in _fields(node):
                if own == 2:
                    yield value.decode('utf-8', 'replace')


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the length-delimited fields of a protobuf message."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, position = _varint(content, position)
            continue
        if kind == 2:
            size, position = _varint(content, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            msg = f'wire type {kind} at byte {position}'
            raise ValueError(msg)
        if position + size > len(content):
            msg = f'it ends within a field at byte {position}'
            raise ValueError(msg)
        if kind == 2:
            yield number, content[position : position + size]
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a number of variable length; return it and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    msg = f'no number at byte {position}'
    raise ValueError(msg)
