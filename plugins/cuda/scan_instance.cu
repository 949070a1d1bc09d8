// The kernels for one type and size (BSM_DTYPE, BSM_HEADDIM, BSM_D_STATE) and their launch.
// Compiled once for each combination.
#include <algorithm>

#include "instance.cuh"
#include "scan_chunks.cuh"
#include "scan_short.cuh"

namespace bsm {
namespace {

template <int kDtype>
struct Type;
template <>
struct Type<BSM_FLOAT32> {
    using T = float;
};
template <>
struct Type<BSM_FLOAT16> {
    using T = Float16;
};
template <>
struct Type<BSM_BFLOAT16> {
    using T = BFloat16;
};

using T = Type<BSM_DTYPE>::T;
using Short = Shape<T, BSM_HEADDIM, BSM_D_STATE, false>;
using Long = Shape<T, BSM_HEADDIM, BSM_D_STATE, true>;
static_assert(Short::kHeads == Long::kHeads);

constexpr int kMaxGroupsPerBlock = 4;  // two blocks of the short form fit an SM of 228 KB

struct Plan {
    bool is_short;
    int groups;
    int groups_per_block;
    bool two_steps;   // the norm takes a second kernel
    host::Grid grid;  // for one direction of one sequence
};

int group_count(const BsmScan& scan) { return (scan.n_heads + Short::kHeads - 1) / Short::kHeads; }

// Divides a scan on a device: as many groups per block as fit, or fewer if the blocks can then
// normalise their rows without a second kernel. `fits_cluster` tells whether clusters can run.
template <class FitsCluster>
Plan make_plan(const BsmScan& scan, const host::Device& device, const FitsCluster& fits_cluster) {
    Plan plan = {};
    plan.is_short = scan.length <= Short::kChunk;
    plan.groups = group_count(scan);
    plan.two_steps = true;
    const int most = plan.is_short ? std::min(kMaxGroupsPerBlock, plan.groups) : 1;
    for (int held = most; held > 0 && plan.two_steps; --held) {
        const int blocks = (plan.groups + held - 1) / held;
        host::Grid grid = {
            blocks, plan.is_short ? Short::kThreads : Long::kThreads, blocks,
            plan.is_short ? ShortMemory<Short>::bytes(held) : ChunksMemory<Long>::kBytes};
        if (grid.shared_bytes > device.shared_bytes) continue;
        const bool is_cluster = (blocks & (blocks - 1)) == 0 && blocks <= host::kMaxCluster;
        const bool can_norm = blocks == 1 || (is_cluster && fits_cluster(plan.is_short, grid));
        if (plan.groups_per_block && !can_norm) continue;
        if (!can_norm) grid.cluster = 1;
        plan.groups_per_block = held;
        plan.two_steps = !can_norm;
        plan.grid = grid;
    }
    return plan;
}

// Bytes for the sums of squares, which a norm in two steps needs.
size_t workspace(const BsmScan& scan) {
    return sizeof(float) * scan.n_sequences * scan.length * 2 * group_count(scan);
}

int enqueue(const BsmScan& scan, const host::Device& device, void* stream) {
    const Plan plan = make_plan(scan, device, [&](bool is_short, const host::Grid& grid) {
        return is_short ? host::fits_cluster<scan_short<Short>>(device, grid)
                        : host::fits_cluster<scan_chunks<Long>>(device, grid);
    });
    if (!plan.groups_per_block) return BSM_OLD_GPU;  // less shared memory than any GPU from 8.0 on
    if (scan.workspace_bytes < workspace(scan)) return BSM_SMALL_WORKSPACE;
    const int64_t d_inner = int64_t{scan.n_heads} * scan.headdim;
    const int64_t width = 2 * d_inner + 2 * scan.d_state + scan.n_heads;
    Params params = {};
    params.zxbcdt = scan.zxbcdt;
    params.conv_weight = scan.conv_weight;
    params.conv_bias = scan.conv_bias;
    params.dt_bias = scan.dt_bias;
    params.A = scan.A;
    params.D = scan.D;
    params.y = scan.y;
    params.squares = plan.two_steps ? static_cast<float*>(scan.workspace) : nullptr;
    params.length = scan.length;
    params.n_heads = scan.n_heads;
    params.groups = plan.groups;
    params.groups_per_block = plan.groups_per_block;
    params.cluster = plan.grid.cluster;
    params.eps = scan.eps;
    params.aligned =
        reinterpret_cast<uintptr_t>(scan.zxbcdt) % 16 == 0 && width * sizeof(T) % 16 == 0;

    const int64_t most = device.max_blocks / (2 * plan.grid.blocks);  // sequences in a launch
    for (int64_t first = 0; first < scan.n_sequences; first += most) {
        params.first_sequence = first;
        host::Grid grid = plan.grid;
        grid.blocks *= 2 * std::min(scan.n_sequences - first, most);
        const int status = plan.is_short
                               ? host::launch<scan_short<Short>>(device, grid, stream, params)
                               : host::launch<scan_chunks<Long>>(device, grid, stream, params);
        if (status != BSM_OK) return status;
    }
    if (!plan.two_steps) return BSM_OK;
    const int64_t rows = 2 * scan.n_sequences * scan.length;
    const host::Grid grid = {std::min((rows + 7) / 8, device.max_blocks), 256, 1, 0};
    return host::launch<normalise<Short>>(device, grid, stream, params, rows);
}

}  // namespace

#define BSM_NAME(dtype, headdim, d_state) BSM_PASTE(dtype, headdim, d_state)
#define BSM_PASTE(dtype, headdim, d_state) instance_##dtype##_##headdim##_##d_state

extern const Instance BSM_NAME(BSM_DTYPE, BSM_HEADDIM, BSM_D_STATE);
const Instance BSM_NAME(BSM_DTYPE, BSM_HEADDIM, BSM_D_STATE) = {BSM_DTYPE, BSM_HEADDIM, BSM_D_STATE,
                                                               workspace, enqueue};

}  // namespace bsm
