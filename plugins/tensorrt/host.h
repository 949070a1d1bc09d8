// Which TensorRT has loaded this library.
#pragma once

namespace bsm {

// Where a virtual function that was the first of its interface in TensorRT 10 is in the table of
// an object of the host's: TensorRT 11 and TensorRT-RTX 1.7 put IVersionedInterface with its four
// entries under ILoggerFinder and ILogger. -1 when the host is none of those.
//
// The plugin interfaces themselves did not change, so that one library serves them all, whatever
// headers it was built with. (Read in the headers of 10.13 to 11.1; tried on TensorRT-RTX 1.7.)
int logger_slot(void const* object) noexcept;

}  // namespace bsm
