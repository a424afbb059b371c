# SPDX-License-Identifier: Apache-2.0
# corematching::cpu_linked: the CPU backend compiled once for each instruction set (a body), for programs that choose
# among them when they run. Used inside the project and, installed, by find_package; then it builds in the project of
# whoever asked. Nothing is built unless a target links it.
if(TARGET corematching::cpu_linked)
  return()
endif()
include(CheckCXXSourceCompiles)
include(${CMAKE_CURRENT_LIST_DIR}/linked_body.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/linked_models.cmake)

set(COREMATCHING_CPU_BODIES all CACHE STRING
  "Instruction sets to build the CPU backend for: all, native (this CPU's best and the baseline), best, or a list")
set(COREMATCHING_PREFILL_TOKEN_BITS 8 CACHE STRING
  "To how many bits products of many tokens with quantised weights round tokens where 8 bits are faster: 8 or 16")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(corematching_known_bodies baseline avx2 avx2_vnni avx512 amx)
  set(corematching_flags_of_baseline -march=x86-64 -DCOREMATCHING_NO_SIMD)
  # Tuned for a CPU that has the set: for CPUs at large GCC 12 makes products of decoding a tenth slower.
  set(corematching_flags_of_avx2 -march=x86-64-v3 -mtune=haswell)
  set(corematching_flags_of_avx2_vnni -march=x86-64-v3 -mavxvnni -mtune=alderlake)
  set(corematching_flags_of_avx512 -march=x86-64-v4 -mavx512vnni -mtune=icelake-server)
  set(corematching_flags_of_amx -march=x86-64-v4 -mavx512vnni -mavx512bf16 -mamx-tile -mamx-bf16 -mtune=sapphirerapids)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(corematching_known_bodies neon neon_dotprod)
  set(corematching_flags_of_neon -march=armv8-a)
  set(corematching_flags_of_neon_dotprod -march=armv8.2-a+dotprod)
else()
  set(corematching_known_bodies baseline)
  set(corematching_flags_of_baseline -DCOREMATCHING_NO_SIMD)
endif()

set(corematching_cmake_dir ${CMAKE_CURRENT_LIST_DIR})

# What the compiler can make depends on the flags of the project, which may change between two configurations.
string(MD5 corematching_flags_hash "${CMAKE_CXX_COMPILER} ${CMAKE_CXX_FLAGS}")
string(SUBSTRING ${corematching_flags_hash} 0 8 corematching_flags_hash)

# corematching_compiles_for(<result> <set> <flag>...): whether the compiler makes kernels for `set` of these flags.
function(corematching_compiles_for result set)
  list(JOIN ARGN " " flags)
  set(CMAKE_CXX_STANDARD 20)
  set(CMAKE_REQUIRED_FLAGS "-std=c++20 -w ${flags}")  # a warning is no reason to do without kernels
  set(CMAKE_REQUIRED_INCLUDES ${corematching_include_dir})
  set(CMAKE_REQUIRED_QUIET ON)
  check_cxx_source_compiles("#include \"corematching/core/instruction_set.hpp\"
    using corematching::instruction_set;
    static_assert(instruction_set::COREMATCHING_CPU_ISA == instruction_set::${set});
    #if defined(COREMATCHING_NO_SIMD) && defined(__AVX__)
    #error
    #endif
    int main() {}" ${result}_${corematching_flags_hash})
  set(${result} ${${result}_${corematching_flags_hash}} PARENT_SCOPE)
endfunction()

# corematching_wanted_bodies(<result>): the sets that COREMATCHING_CPU_BODIES asks for and the compiler can do.
function(corematching_wanted_bodies result)
  set(wanted ${COREMATCHING_CPU_BODIES})
  set(all FALSE)
  if("all" IN_LIST wanted)
    set(all TRUE)
    set(wanted ${corematching_known_bodies})
  endif()
  list(GET corematching_known_bodies 0 baseline)
  set(native FALSE)
  if("native" IN_LIST wanted)
    set(native TRUE)
  endif()
  if(native OR "best" IN_LIST wanted)
    list(REMOVE_ITEM wanted native best)
    foreach(set IN LISTS corematching_known_bodies)
      corematching_compiles_for(corematching_native_is_${set} ${set} -march=native)
      if(corematching_native_is_${set})
        list(APPEND wanted ${set})
      endif()
    endforeach()
  endif()
  if(native)
    if("amx" IN_LIST wanted)  # which a system may refuse
      list(PREPEND wanted avx512)
    endif()
    list(PREPEND wanted ${baseline})
  endif()
  set(bodies "")
  foreach(set IN LISTS corematching_known_bodies)
    if(NOT set IN_LIST wanted)
      continue()
    endif()
    corematching_compiles_for(corematching_can_make_${set} ${set} ${corematching_flags_of_${set}})
    if(corematching_can_make_${set})
      list(APPEND bodies ${set})
    elseif(NOT all)
      message(FATAL_ERROR "corematching: ${CMAKE_CXX_COMPILER} with CMAKE_CXX_FLAGS '${CMAKE_CXX_FLAGS}' makes no "
        "kernels for ${set} (${corematching_flags_of_${set}}), which COREMATCHING_CPU_BODIES names.")
    else()
      message(NOTICE "corematching: no kernels for ${set}, which this compiler and its flags cannot make")
    endif()
    list(REMOVE_ITEM wanted ${set})
  endforeach()
  if(NOT "${wanted}" STREQUAL "")
    list(JOIN corematching_known_bodies ", " known)
    message(FATAL_ERROR "COREMATCHING_CPU_BODIES names '${wanted}'; for ${CMAKE_SYSTEM_PROCESSOR} there are ${known}, "
      "and all, native and best.")
  endif()
  if(NOT bodies)
    message(FATAL_ERROR "corematching: COREMATCHING_CPU_BODIES is '${COREMATCHING_CPU_BODIES}', which leaves no kernels to "
      "build cpu_linked of.")
  endif()
  set(${result} ${bodies} PARENT_SCOPE)
endfunction()

# corematching_cpu_body(<set>): the body of these kernels.
function(corematching_cpu_body set)
  set(flags ${corematching_flags_of_${set}} -DCOREMATCHING_BODY=${set}
    -DCOREMATCHING_PREFILL_TOKEN_BITS=${COREMATCHING_PREFILL_TOKEN_BITS})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 takes the deliberately undefined operand of its own AVX-512 intrinsics for a mistake (GCC bug 105593).
    list(APPEND flags -Wno-maybe-uninitialized -Wno-uninitialized)
  endif()
  corematching_body(${set} SOURCE backend/cpu/body.cpp OPTIONS ${flags} LINK corematching::cpu)
endfunction()

# corematching_link_bodies(<target> <body>...): a static library with these bodies, named after their instruction sets,
# and the list of them; `eigen` among them is that of eigen_linked.cmake.
function(corematching_link_bodies target)
  set(corematching_body_declarations "")
  set(corematching_body_addresses "")
  foreach(body IN LISTS ARGN)
    string(APPEND corematching_body_declarations
      "extern const corematching::linked::body<corematching::host_space> corematching_cpu_body_${body};\n")
    list(APPEND corematching_body_addresses "&corematching_cpu_body_${body}")
  endforeach()
  list(JOIN corematching_body_addresses ", " corematching_body_addresses)
  configure_file(${corematching_cmake_dir}/cpu_bodies.cpp.in ${target}.cpp @ONLY)
  add_library(${target} STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_BINARY_DIR}/${target}.cpp)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  corematching_models_on(corematching_host_models host_space)
  target_link_libraries(${target} PUBLIC corematching::model corematching_host_models Threads::Threads)
  foreach(body IN LISTS ARGN)
    if(body STREQUAL "eigen")
      target_link_libraries(${target} PUBLIC corematching::eigen_linked)
    else()
      corematching_cpu_body(${body})
      corematching_put_body(${target} ${body})
    endif()
  endforeach()
endfunction()

corematching_wanted_bodies(corematching_bodies)
if(NOT corematching_isolates)
  list(LENGTH corematching_bodies count)
  if(count GREATER 1)
    # Whatever the program runs on, this one does, unless the machine of the build is what it is for.
    if(COREMATCHING_CPU_BODIES STREQUAL "native")
      list(GET corematching_bodies -1 corematching_bodies)
    else()
      list(GET corematching_bodies 0 corematching_bodies)
    endif()
  endif()
  message(NOTICE "corematching: ${CMAKE_LINKER} and objcopy cannot make symbols local, so cpu_linked has one instruction "
    "set, ${corematching_bodies}, and shares inline functions with the program.")
endif()
corematching_link_bodies(corematching_cpu_linked ${corematching_bodies})
add_library(corematching::cpu_linked ALIAS corematching_cpu_linked)
