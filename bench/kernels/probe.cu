// Prints, as JSON, how the launch code divides a scan. It needs no GPU: it is compiled with
// scan_instance.cu and passes the properties of one.
//   probe HEADS SEQUENCES LENGTH COMPUTE SHARED_BYTES
#include "scan_instance.cu"

#include <cstdio>
#include <cstdlib>

namespace bsm::host {
int status_of(cudaError_t) { return BSM_CUDA_ERROR; }  // nothing is launched
}  // namespace bsm::host

int main(int count, char** words) {
    if (count != 6) return 2;
    const auto word = [&](int i) { return std::atoll(words[i]); };
    BsmScan scan = {};
    scan.n_heads = static_cast<int>(word(1));
    scan.headdim = BSM_HEADDIM;
    scan.d_state = BSM_D_STATE;
    scan.n_sequences = word(2);
    scan.length = word(3);
    const bsm::host::Device device = {0, static_cast<int>(word(4)), static_cast<size_t>(word(5)),
                                      0x7fffffff};
    const bsm::Plan plan = bsm::make_plan(
        scan, device, [&](bool, const bsm::host::Grid&) { return device.compute >= 90; });
    const auto print = [&](auto shape, size_t shared_bytes) {
        using S = decltype(shape);
        using P = bsm::Products<typename S::T>;
        std::printf("{\"threads\": %d, \"warps\": %d, \"chunk\": %d, \"heads\": %d, \"slab\": %d, "
                    "\"conv_steps\": %d, "
                    "\"channels\": %d, \"d_state\": %d, \"item_bytes\": %zu, \"depth\": %d, "
                    "\"products\": %d, \"row_tiles\": %d, \"sharing\": %d, \"own_tiles\": %d, "
                    "\"shared_bytes\": %zu, ",
                    S::kThreads, S::kWarps, S::kChunk, S::kHeads, S::kSlab, S::kSteps, S::kChannels,
                    S::kDState, sizeof(typename S::T), P::kDepth, S::kWide ? 3 : 1, S::kRowTiles,
                    bsm::Scores<S>::kSharing, bsm::Scores<S>::kOwn, shared_bytes);
    };
    if (plan.is_short) {
        print(bsm::Short{}, bsm::ShortMemory<bsm::Short>::bytes(plan.groups_per_block));
    } else {
        print(bsm::Long{}, bsm::ChunksMemory<bsm::Long>::kBytes);
    }
    std::printf("\"launch_bytes\": %zu, \"groups\": %d, \"groups_per_block\": %d, "
                "\"blocks_per_row\": %d, \"cluster\": %d, \"two_steps\": %s}\n",
                plan.grid.shared_bytes, plan.groups, plan.groups_per_block,
                static_cast<int>(plan.grid.blocks), plan.grid.cluster,
                plan.two_steps ? "true" : "false");
}
