# SPDX-License-Identifier: Apache-2.0
"""Which standard header has which name: a header of this library includes those of the names that it uses, and no
others. So it compiles wherever it is included first, whatever other headers happen to bring along."""

import re

NAMES_OF = {
    "algorithm": "adjacent_find all_of any_of clamp copy copy_n count count_if equal fill fill_n find find_if find_if_not lower_bound make_heap max "
                 "max_element min min_element minmax mismatch none_of nth_element partition_point pop_heap push_heap remove_if reverse rotate "
                 "search sort stable_sort transform unique upper_bound partial_sort copy_if generate binary_search set_difference",
    "array": "array",
    "atomic": "atomic atomic_flag atomic_ref atomic_signal_fence atomic_thread_fence memory_order_acq_rel "
              "memory_order_acquire memory_order_relaxed memory_order_release memory_order_seq_cst",
    "bit": "bit_cast bit_ceil bit_floor bit_width countl_zero countr_zero endian popcount rotl rotr has_single_bit",
    "bitset": "bitset",
    "charconv": "from_chars to_chars",
    "chrono": "chrono",
    "cmath": "abs ceil copysign cos erf exp fabs floor fma fmod isfinite isinf isnan log log2 lround nearbyint pow round "
             "sin sqrt tanh trunc",
    "concepts": "constructible_from convertible_to derived_from floating_point integral invocable same_as",
    "condition_variable": "condition_variable",
    "cstddef": "byte nullptr_t ptrdiff_t size_t to_integer",
    "cstdint": "int16_t int32_t int64_t int8_t intptr_t uint16_t uint32_t uint64_t uint8_t uintmax_t uintptr_t",
    "cstdio": "FILE fclose fopen fprintf fputs rename snprintf",
    "cstdlib": "aligned_alloc free getenv malloc strtod strtol",
    "cstring": "memchr memcmp memcpy memmove memset strcmp strerror strlen",
    "ctime": "time time_t tm",
    "exception": "current_exception exception exception_ptr make_exception_ptr rethrow_exception",
    "filesystem": "filesystem",
    "fstream": "ifstream ofstream",
    "functional": "equal_to function greater greater_equal hash identity invoke less multiplies plus",
    "future": "async future launch promise",
    "initializer_list": "initializer_list",
    "istream": "istream",
    "iterator": "back_inserter distance istreambuf_iterator make_move_iterator next prev",
    "limits": "numeric_limits",
    "list": "list",
    "map": "map",
    "memory": "addressof enable_shared_from_this make_shared make_unique shared_ptr unique_ptr weak_ptr",
    "mutex": "call_once lock_guard mutex once_flag scoped_lock unique_lock",
    "new": "align_val_t bad_alloc nothrow",
    "numbers": "numbers",
    "numeric": "accumulate gcd iota lcm partial_sum reduce",
    "optional": "nullopt nullopt_t optional",
    "ostream": "ostream",
    "queue": "priority_queue queue",
    "random": "mt19937 mt19937_64 normal_distribution uniform_int_distribution uniform_real_distribution",
    "ranges": "contiguous_range data range_value_t size views",
    "set": "set",
    "span": "as_bytes as_writable_bytes span",
    "sstream": "istringstream ostringstream stringstream",
    "stdexcept": "invalid_argument logic_error out_of_range runtime_error",
    "string": "basic_string getline string stod stoi to_string u32string",
    "string_view": "string_view u32string_view",
    "system_error": "errc error_code generic_category system_category system_error",
    "thread": "jthread this_thread thread",
    "tuple": "apply get ignore make_tuple tie tuple tuple_element_t tuple_size_v",
    "type_traits": "bool_constant common_type_t conditional_t decay_t enable_if_t false_type integral_constant "
                   "invoke_result_t is_base_of_v is_const_v is_enum_v is_floating_point_v is_integral_v "
                   "is_invocable_v is_same_v is_trivially_copyable_v is_trivially_destructible_v is_unsigned_v is_void_v "
                   "make_unsigned_t remove_const_t remove_cv_t remove_cvref_t remove_pointer_t remove_reference_t true_type "
                   "type_identity_t underlying_type_t void_t",
    "unordered_map": "unordered_map",
    "unordered_set": "unordered_set",
    "utility": "as_const cmp_less declval exchange forward in_range index_sequence index_sequence_for integer_sequence "
               "make_index_sequence make_integer_sequence make_pair move pair swap to_underlying",
    "variant": "get get_if holds_alternative monostate variant variant_alternative_t variant_size_v visit",
    "vector": "erase_if vector",
}
# Names of several headers: one of these is enough.
ALTERNATIVES = {"get": {"tuple", "variant", "array", "utility"}, "erase_if": {"map", "set", "string", "unordered_map", "vector"},
                "data": {"ranges", "array", "span", "string", "string_view", "vector"},
                "size": {"ranges", "array", "span", "string", "string_view", "vector"},
                "ssize": {"array", "iterator", "map", "span", "string", "string_view", "vector"},
                "bad_alloc": {"new"}, "hash": {"functional", "string", "string_view"}}
HEADERS_OF = {name: {header} for header, names in NAMES_OF.items() for name in names.split()} | ALTERNATIVES
# What these give may be used without a name of std: in a list in braces, by a placement of new, by the device's functions.
MAY_SEEM_UNUSED = {"cmath", "initializer_list", "new"}
# Names without std:: that come from these headers alone.
MACROS = {"assert": "cassert", "errno": "cerrno"}


def check_standard_names(code):
    """Yields (line, what is wrong) for names whose header is missing and for headers of which no name is used."""
    included = {}
    for number, line in enumerate(code.splitlines(), 1):
        include = re.match(r"\s*#\s*include\s*<(\w+)>", line)
        if include:
            included[include[1]] = number
    used, told = set(), set()
    for number, line in enumerate(code.splitlines(), 1):
        names = re.findall(r"\bstd::(?:ranges::)?(\w+)", line)
        headers = [(f"std::{name}", HEADERS_OF.get(name)) for name in names]
        headers += [(name, {header}) for name, header in MACROS.items() if re.search(rf"(?<![\w:.]){name}\b(?!\s*::)", line)]
        for name, having in headers:
            if having is None:
                yield number, f"{name}: tests/structure/standard_names.py does not say which header has it"
                continue
            used |= having
            if not having & included.keys() and name not in told:
                told.add(name)
                yield number, f"uses {name} and does not include <{'> or <'.join(sorted(having))}>"
    known = (NAMES_OF.keys() | set(MACROS.values())) - MAY_SEEM_UNUSED
    for header, number in included.items():
        if header in known and header not in used:
            yield number, f"includes <{header}> and uses nothing of it"
