// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/access.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "corematching/io/json.hpp"
#include "llava/serve/api_error.hpp"

namespace corematching::driver {
namespace {

bool is_port(std::string_view text) {
  return text.size() <= 5 && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// The host of "host:port", an address of IPv6 without its brackets; empty where it is none.
std::string host_of(std::string_view authority) {
  if (authority.starts_with('[')) {
    const auto end = authority.find(']');
    if (end == authority.npos) return {};
    const std::string_view rest = authority.substr(end + 1);
    const bool is_whole = rest.empty() || (rest.starts_with(':') && is_port(rest.substr(1)));
    return is_whole ? std::string(authority.substr(1, end - 1)) : std::string();
  }
  const auto colon = authority.find(':');
  if (colon != authority.npos && !is_port(authority.substr(colon + 1))) return {};
  return lower_case(authority.substr(0, colon));
}

bool is_address(const std::string& host) {
  in6_addr place{};
  return ::inet_pton(AF_INET, host.c_str(), &place) == 1 || ::inet_pton(AF_INET6, host.c_str(), &place) == 1;
}

/// Takes as long for every text of one length, so that a key cannot be found digit by digit.
bool equals_secretly(std::string_view given, std::string_view key) {
  unsigned char differing = given.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i)
    differing |= static_cast<unsigned char>(given[i] ^ key[i % key.size()]);
  return differing == 0;
}

std::size_t count_of(const http_head& head, std::string_view name) {
  return static_cast<std::size_t>(std::ranges::count(
      head.fields, name, [](const auto& field) -> std::string_view { return field.first; }));
}

}  // namespace

void check_host(const http_head& head, const access_rules& rules) {
  const std::string* authority = head.find("host");
  if (authority == nullptr || count_of(head, "host") != 1)
    throw api_error(400, "bad_request", "the request has not one field Host");
  const std::string host = host_of(*authority);
  const bool is_known = host == "localhost" || is_address(host) || std::ranges::count(rules.hosts, host) > 0;
  if (!is_known)
    throw api_error(
        403, "host_not_allowed",
        "this server does not go by the name " + io::in_quotes(*authority) + "; --allow-host NAME lets it");
  const std::string* origin = head.find("origin");
  if (origin == nullptr) return;
  if (count_of(head, "origin") != 1 ||
      (*origin != "http://" + *authority && *origin != "https://" + *authority))
    throw api_error(403, "origin_not_allowed",
                    "pages of " + io::in_quotes(*origin) + " may not ask this server");
}

void check_key(const http_head& head, const access_rules& rules) {
  if (rules.api_key.empty()) return;
  constexpr std::string_view scheme = "bearer ";  // in whatever case (RFC 9110, 11.1)
  const std::string* given = head.find("authorization");
  if (given == nullptr || count_of(head, "authorization") != 1 ||
      lower_case(given->substr(0, scheme.size())) != scheme)
    throw api_error(401, "missing_api_key", "an API key is needed: Authorization: Bearer KEY")
        .with("WWW-Authenticate", "Bearer");
  if (!equals_secretly(std::string_view(*given).substr(scheme.size()), rules.api_key))
    throw api_error(401, "invalid_api_key", "the API key is another").with("WWW-Authenticate", "Bearer");
}

}  // namespace corematching::driver
