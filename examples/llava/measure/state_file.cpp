// SPDX-License-Identifier: Apache-2.0
#include "llava/measure/state_file.hpp"

#include <cerrno>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/output_file.hpp"

namespace corematching::driver {
namespace {

std::span<const std::byte> bytes_of_text(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

io::json sums_json(const tally& sums) {
  io::json object;
  for (const auto& [name, sum] : counted_sums) object[name] = sums.*sum;
  for (const auto& [name, sum] : real_sums) object[name] = sums.*sum;
  return object;
}

tally parse_sums(const io::json_object& object) {
  constexpr std::int64_t most = std::int64_t{1} << 62;
  tally sums;
  for (const auto& [name, sum] : counted_sums)
    sums.*sum = static_cast<std::uint64_t>(object.integer(name, 0, most));
  for (const auto& [name, sum] : real_sums) sums.*sum = object.number(name, -1e300, 1e300);
  return sums;
}

std::vector<tally> parse_runs(std::string_view line, const std::string& where, std::size_t runs) {
  const io::json parsed = io::parse_json(bytes_of_text(line), where);
  require(parsed.is_array() && parsed.size() == runs, where, ": is not the list of ", runs,
          " runs of an item");
  std::vector<tally> item;
  for (const io::json& run : parsed) item.push_back(parse_sums(io::json_object(run, where)));
  return item;
}

void require_same(const io::json& found, const io::json& identity, const std::filesystem::path& path) {
  require(found.is_object() && found.contains("measured"), path.string(), ": is no state of llava measure");
  for (const auto& [key, wanted] : identity.items()) {
    const auto other = found.find(key);
    const std::string is = other == found.end() ? "missing" : io::json_text(*other);
    require(is == io::json_text(wanted), path.string(), ": is the state of another measurement: its \"", key,
            "\" is ", is, ", and not ", io::json_text(wanted));
  }
}

}  // namespace

state_file::state_file(const std::filesystem::path& path, const io::json& identity, std::size_t items,
                       std::size_t runs)
    : path_(path) {
  io::refuse_special_file(path);
  lock_ = file_lock(path);
  const std::string first = io::json_text(identity) + "\n";
  std::string text;
  {
    const io::mapped_file file = io::mapped_file::open(path);
    text.assign(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  }
  const std::size_t whole = text.rfind('\n') + 1;  // npos + 1 is 0
  const bool begins = whole == 0;
  require(!begins || first.starts_with(text), path.string(), ": is no state of llava measure");
  text.resize(whole);
  if (!begins) {
    read(text, identity, items, runs);
    std::filesystem::resize_file(path, whole);  // what an interrupted start left of a line
  }
  out_.open(path, begins ? std::ios::binary | std::ios::trunc : std::ios::binary | std::ios::app);
  require(out_.is_open(), path.string(), ": cannot be written: ", io::errno_text(errno));
  if (begins) require(static_cast<bool>(out_ << first << std::flush), path.string(), ": cannot be written");
}

void state_file::read(const std::string& text, const io::json& identity, std::size_t items,
                      std::size_t runs) {
  std::string_view rest = text;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    const std::string where = path_.string() + ": line " + std::to_string(number);
    if (number == 1) {
      require_same(io::parse_json(bytes_of_text(line), where), identity, path_);
    } else {
      items_.push_back(parse_runs(line, where, runs));
    }
    rest.remove_prefix(line.size() + 1);
  }
  require(items_.size() <= items, path_.string(), ": holds ", items_.size(), " items of ", items);
}

void state_file::add(std::vector<tally> runs) {
  io::json line = io::json::array();
  for (const tally& run : runs) line.push_back(sums_json(run));
  items_.push_back(std::move(runs));
  if (!out_.is_open()) return;
  require(static_cast<bool>(out_ << line.dump() << '\n'
                                 << std::flush),
          path_.string(), ": cannot be written");
}

}  // namespace corematching::driver
