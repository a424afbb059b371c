// SPDX-License-Identifier: Apache-2.0
// Who may ask. A server on the loopback device is within reach of every page that a browser on this machine
// shows: a page's own name may be made to mean 127.0.0.1 (DNS rebinding), and any page may send a request
// whose answer it must not read. Names of hosts are therefore checked, and where a request comes from.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llava/serve/http_head.hpp"

namespace corematching::driver {

struct access_rules {
  std::vector<std::string> hosts = {};  // names, in lower case, that this server goes by beside addresses
                                        // and localhost
  std::string api_key = {};             // empty: none is asked for
};

/// Throws `api_error` for a head that names another host than this one, or that comes from a page of another.
/// An address as a host is no name that somebody else could have given.
void check_host(const http_head& head, const access_rules& rules);

/// Throws `api_error` where a key is asked for and the head has another or none ("Authorization: Bearer").
void check_key(const http_head& head, const access_rules& rules);

}  // namespace corematching::driver
