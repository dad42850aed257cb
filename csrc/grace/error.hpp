// The one error class of the core. A message is one sentence that names the argument, the value and the remedy.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace grace {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// require(condition, "`skin` must be >= 0, got ", skin): throws grace::Error with the pieces joined when condition is
// false.
template <class... Pieces>
void require(bool condition, const Pieces&... pieces) {
  if (condition) return;
  std::ostringstream message;
  message.precision(15);
  (message << ... << pieces);
  throw Error(message.str());
}

}  // namespace grace
