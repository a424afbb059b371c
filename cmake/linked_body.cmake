# SPDX-License-Identifier: Apache-2.0
# Bodies: a backend as one object file with one symbol, its entry (backend/linked/body.hpp).
#
# Bodies are compiled with flags that the program is not, so they may share no symbol with it or with each other, not
# even an inline function of the standard library: each is linked by itself, its groups of mergeable sections dissolved,
# and then all of its symbols but the entry are made local.

get_target_property(corematching_include_dir corematching::core INTERFACE_INCLUDE_DIRECTORIES)
string(REGEX REPLACE "^\\$<BUILD_INTERFACE:([^>]*)>.*$" "\\1" corematching_include_dir "${corematching_include_dir}")
set(corematching_body_dir ${CMAKE_CURRENT_BINARY_DIR})

# What makes a body's symbols local: a linker that dissolves groups, which need not be the one that links programs.
set(corematching_isolates FALSE)
set(corematching_linkers ${CMAKE_LINKER})
get_filename_component(corematching_tools "${CMAKE_OBJCOPY}" DIRECTORY)
foreach(corematching_name IN ITEMS ld.bfd ld)
  find_program(COREMATCHING_${corematching_name} HINTS ${corematching_tools}
    NAMES ${CMAKE_CXX_COMPILER_TARGET}-${corematching_name} ${corematching_name})
  mark_as_advanced(COREMATCHING_${corematching_name})
  if(NOT CMAKE_CROSSCOMPILING)
    list(APPEND corematching_linkers ${COREMATCHING_${corematching_name}})
  endif()
endforeach()
foreach(corematching_candidate IN LISTS corematching_linkers)
  execute_process(COMMAND ${corematching_candidate} --help OUTPUT_VARIABLE corematching_linker_help ERROR_QUIET)
  if(CMAKE_OBJCOPY AND NOT corematching_isolates AND corematching_linker_help MATCHES "force-group-allocation")
    set(corematching_isolates TRUE)
    set(corematching_linker ${corematching_candidate})
  endif()
endforeach()

# corematching_body(<name> SOURCE <file> OPTIONS <flag>... LINK <target>...): the target corematching_body_<name> that makes
# the object file of the body whose entry is corematching_cpu_body_<name>. `file` is relative to include/corematching.
function(corematching_body name)
  set(objects corematching_body_objects_${name})
  if(TARGET ${objects})
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 1 body "" "SOURCE" "OPTIONS;LINK")
  add_library(${objects} OBJECT EXCLUDE_FROM_ALL ${corematching_include_dir}/corematching/${body_SOURCE})
  target_link_libraries(${objects} PRIVATE ${body_LINK})
  target_compile_options(${objects} PRIVATE ${body_OPTIONS} -fno-lto)
  set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON INTERPROCEDURAL_OPTIMIZATION OFF
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON UNITY_BUILD OFF CXX_CLANG_TIDY "")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${objects} PRIVATE -fno-gnu-unique)  # unique symbols are never made local
  endif()
  if(corematching_isolates)
    set(object ${corematching_body_dir}/corematching_body_${name}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${corematching_linker} -r --force-group-allocation $<TARGET_OBJECTS:${objects}> -o ${object}.linked
      COMMAND ${CMAKE_OBJCOPY} --keep-global-symbol=corematching_cpu_body_${name} ${object}.linked ${object}
      COMMAND ${CMAKE_COMMAND} -E rm ${object}.linked
      DEPENDS ${objects} $<TARGET_OBJECTS:${objects}> VERBATIM COMMAND_EXPAND_LISTS
      COMMENT "Making all of the ${name} kernels' symbols local but their entry")
    add_custom_target(corematching_body_${name} DEPENDS ${object})
  endif()
endfunction()

# corematching_put_body(<target> <name>): the body into a library.
function(corematching_put_body target name)
  if(corematching_isolates)
    set(object ${corematching_body_dir}/corematching_body_${name}.o)
    set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
    target_sources(${target} PRIVATE ${object})
    add_dependencies(${target} corematching_body_${name})
  else()
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:corematching_body_objects_${name}>)
  endif()
endfunction()
