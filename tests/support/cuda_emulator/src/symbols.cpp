// SPDX-License-Identifier: Apache-2.0
#include "symbols.hpp"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string_view>

namespace cuda_emulator::detail {

namespace {

/// The file of the running program, mapped for as long as it runs: most of it is never read.
std::string_view program_file() {
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  struct stat about {};
  if (file < 0 || fstat(file, &about) != 0) return {};
  const auto size = static_cast<std::size_t>(about.st_size);
  void* const begin = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (begin == MAP_FAILED) return {};
  return {static_cast<const char*>(begin), size};
}

std::uintptr_t load_address() {
  std::uintptr_t address = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* program, std::size_t, void* to) {
        *static_cast<std::uintptr_t*>(to) = program->dlpi_addr;
        return 1;  // the program itself comes first
      },
      &address);
  return address;
}

template <class T>
T at(std::string_view file, std::size_t offset) {
  T value{};
  if (offset <= file.size() && sizeof(T) <= file.size() - offset)
    std::memcpy(&value, file.data() + offset, sizeof(T));
  return value;
}

/// Calls visit(type, name, address, bytes) for each symbol that this program defines.
template <class Visit>
void for_each_symbol(Visit visit) {
  static const std::string_view file = program_file();
  const auto header = at<ElfW(Ehdr)>(file, 0);
  const std::uintptr_t base = load_address();
  for (std::size_t i = 0; i < header.e_shnum; ++i) {
    const auto section = at<ElfW(Shdr)>(file, header.e_shoff + i * sizeof(ElfW(Shdr)));
    if (section.sh_type != SHT_SYMTAB) continue;
    const auto names = at<ElfW(Shdr)>(file, header.e_shoff + section.sh_link * sizeof(ElfW(Shdr)));
    for (std::size_t offset = 0; offset < section.sh_size; offset += sizeof(ElfW(Sym))) {
      const auto symbol = at<ElfW(Sym)>(file, section.sh_offset + offset);
      if (symbol.st_shndx == SHN_UNDEF) continue;
      visit(symbol.st_info & 15, file.data() + names.sh_offset + symbol.st_name, base + symbol.st_value,
            symbol.st_size);
    }
  }
}

std::vector<shared_variable> find_shared_variables() {
  std::vector<shared_variable> found;
  for_each_symbol([&](int type, const char* name, std::uintptr_t address, std::size_t size) {
    if (type == STT_OBJECT && std::string_view(name).ends_with("B11cuda_shared"))
      found.push_back({reinterpret_cast<unsigned char*>(address), size});
  });
  return found;
}

}  // namespace

std::string symbol_name(const void* function) {
  const char* mangled = nullptr;
  for_each_symbol([&](int type, const char* name, std::uintptr_t address, std::size_t) {
    if (type == STT_FUNC && address == reinterpret_cast<std::uintptr_t>(function)) mangled = name;
  });
  if (mangled == nullptr) return "kernel";
  char* readable = abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr);
  const std::string name = readable != nullptr ? readable : mangled;
  std::free(readable);
  return name;
}

void shared_memory::poison() {
  static const std::vector<shared_variable>& all = *new std::vector(find_shared_variables());
  const auto is_changed = [](const shared_variable& each) {
    return each.size > 0 &&
           (*each.begin != 0xff || std::memcmp(each.begin, each.begin + 1, each.size - 1) != 0);
  };
  if (blocks_ == 1) std::copy_if(all.begin(), all.end(), std::back_inserter(used_), is_changed);
  for (const shared_variable& each : blocks_ == 0 ? all : used_) std::fill_n(each.begin, each.size, 0xff);
  ++blocks_;
}

}  // namespace cuda_emulator::detail
