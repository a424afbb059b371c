# SPDX-License-Identifier: Apache-2.0
# What our own executables share; nothing in here is exported.
# Warnings of a compiler that we do not test with are no reason to stop. Asked here and not where a build is configured,
# so that every command configures alike and no build undoes another's.
set(tested_compilers "GNU 12;Clang 14")
string(REGEX MATCH "^[0-9]+" compiler_major "${CMAKE_CXX_COMPILER_VERSION}")
if(NOT "${CMAKE_CXX_COMPILER_ID} ${compiler_major}" IN_LIST tested_compilers)
  set(CMAKE_COMPILE_WARNING_AS_ERROR OFF)
endif()

# GCC 12 takes the deliberately undefined operand of its own AVX-512 intrinsics for a mistake (GCC bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND compiler_major EQUAL 12)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
endif()

# Sanitizers multiply the time that a file takes to compile, so with them only what they may find something in is built.
string(TOUPPER "${CMAKE_BUILD_TYPE}" build_type)
set(corematching_sanitized FALSE)
if("${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type}}" MATCHES "-fsanitize=")
  set(corematching_sanitized TRUE)
  # The preset has memory checked by calls, which compile sooner; where much is computed they take too long. What is
  # read in vectors may lie where it should not; elsewhere that check is the dearest of all.
  foreach(body IN LISTS corematching_known_bodies ITEMS eigen)
    if(TARGET corematching_body_objects_${body} AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(corematching_body_objects_${body} PRIVATE
        --param=asan-instrumentation-with-call-threshold=7000 -fsanitize=alignment)
    endif()
  endforeach()
endif()

# The instruction set of this machine, for the executables that do not ask for the portable path.
add_library(corematching_native INTERFACE)
if(COREMATCHING_NATIVE)
  target_compile_options(corematching_native INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()

# Tests and benchmarks for a device on a machine without one: compiled, so that they are known to compile, and quickly,
# since nobody runs them.
add_library(corematching_device_programs INTERFACE)
if(TARGET corematching::cuda AND NOT corematching_has_device)
  include(CheckCompilerFlag)
  check_compiler_flag(CUDA --Ofast-compile=max COREMATCHING_CUDA_COMPILES_FAST)
  if(COREMATCHING_CUDA_COMPILES_FAST)
    set(corematching_fast_cuda --Ofast-compile=max)
    target_compile_options(corematching_device_programs INTERFACE
      $<$<COMPILE_LANGUAGE:CUDA>:${corematching_fast_cuda}>)
  endif()
endif()

# corematching_joined_source(<variable> <name> <file>...): one translation unit of all files, which are named as they
# are included. Unlike CMake's own unity builds it names no directory, so that a compiler cache knows it in every checkout.
function(corematching_joined_source variable name)
  list(TRANSFORM ARGN REPLACE "(.+)" "#include \"\\1\"\n" OUTPUT_VARIABLE includes)
  string(JOIN "" includes ${includes})
  set(joined ${CMAKE_CURRENT_BINARY_DIR}/${name}_joined.cpp)
  file(CONFIGURE OUTPUT ${joined} CONTENT "${includes}")
  set(${variable} ${joined} PARENT_SCOPE)
endfunction()

# corematching_tool(<what> <package> <target> <Debian package>): a dependency of our executables, not of the library.
macro(corematching_tool what package target debian)
  find_package(${package} QUIET)
  if(NOT TARGET ${target})
    message(FATAL_ERROR "${what} of corematching need ${package} (Debian: ${debian}).")
  endif()
endmacro()

# corematching_link_picture_libraries(<target> <what>): what examples/llava decodes pictures with.
function(corematching_link_picture_libraries target what)
  corematching_tool(${what} PNG PNG::PNG libpng-dev)
  corematching_tool(${what} JPEG JPEG::JPEG libjpeg-dev)
  corematching_tool(${what} GIF GIF::GIF libgif-dev)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(corematching_webp QUIET IMPORTED_TARGET libwebp libwebpdemux)
    pkg_check_modules(corematching_exif QUIET IMPORTED_TARGET libexif)
  endif()
  if(NOT TARGET PkgConfig::corematching_webp OR NOT TARGET PkgConfig::corematching_exif)
    message(FATAL_ERROR "${what} of corematching need libwebp and libexif (Debian: pkg-config libwebp-dev libexif-dev).")
  endif()
  target_link_libraries(${target} PRIVATE
    PNG::PNG JPEG::JPEG GIF::GIF PkgConfig::corematching_webp PkgConfig::corematching_exif)
endfunction()
