# SPDX-License-Identifier: Apache-2.0
# One INTERFACE target per part of the library. A part states its headers and what it needs, nothing else: warnings,
# sanitizers and -march belong to whoever compiles (here: CMakePresets.json).

# corematching_component(<name> HEADERS <pattern>... LINK <target>...)
# Headers are globbed: in a header-only library a list would have nothing to add but a way to be stale, and a test
# compiles every header on its own.
function(corematching_component name)
  cmake_parse_arguments(PARSE_ARGV 1 part "" "" "HEADERS;LINK")
  list(TRANSFORM part_HEADERS PREPEND ${PROJECT_SOURCE_DIR}/include/corematching/)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${part_HEADERS})
  add_library(corematching_${name} INTERFACE)
  add_library(corematching::${name} ALIAS corematching_${name})
  set_target_properties(corematching_${name} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(corematching_${name} INTERFACE cxx_std_20)
  target_sources(corematching_${name} INTERFACE
    FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${headers})
  target_link_libraries(corematching_${name} INTERFACE ${part_LINK})
  set_property(GLOBAL APPEND PROPERTY corematching_parts ${name})
  set_property(GLOBAL APPEND PROPERTY corematching_headers ${headers})
endfunction()

# corematching_need(<component> <package> <version> <target> <Debian package>)
macro(corematching_need component package version target debian)
  if(NOT TARGET ${target})
    find_package(${package} ${version} QUIET)
  endif()
  if(NOT TARGET ${target})
    message(FATAL_ERROR "Component '${component}' of corematching needs ${package} ${version} (Debian: ${debian}). "
      "Install it, or leave the component out of COREMATCHING_COMPONENTS (now: ${COREMATCHING_COMPONENTS}).")
  endif()
endmacro()

set(known select io text chat eigen eigen_linked cpu cpu_linked cuda cuda_linked)
set(wanted ${COREMATCHING_COMPONENTS})
foreach(component IN LISTS wanted)
  if(NOT component IN_LIST known)
    message(FATAL_ERROR "COREMATCHING_COMPONENTS names '${component}'; corematching has select, io, text, chat, eigen, "
      "eigen_linked, cpu, cpu_linked, cuda and cuda_linked.")
  endif()
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/cuda.cmake)
foreach(backend IN ITEMS eigen cpu)
  if("${backend}_linked" IN_LIST wanted)
    list(APPEND wanted ${backend})
  endif()
endforeach()
if("eigen" IN_LIST wanted OR "cpu" IN_LIST wanted OR "cuda" IN_LIST wanted)
  list(APPEND wanted select io model)
endif()
if("text" IN_LIST wanted OR "chat" IN_LIST wanted)
  list(APPEND wanted io)
endif()

corematching_component(core HEADERS core/*.hpp)
if("select" IN_LIST wanted)
  corematching_component(select HEADERS select/*.hpp select.hpp LINK corematching_core)
endif()
if("io" IN_LIST wanted)
  corematching_need(io nlohmann_json 3.11 nlohmann_json::nlohmann_json nlohmann-json3-dev)
  corematching_component(io HEADERS io/*.hpp LINK corematching_core nlohmann_json::nlohmann_json)
endif()
if("chat" IN_LIST wanted)
  corematching_component(chat HEADERS chat/*.hpp LINK corematching_io)
endif()
if("text" IN_LIST wanted)
  include(${CMAKE_CURRENT_LIST_DIR}/text_libraries.cmake)
  if(NOT TARGET corematching::oniguruma OR NOT TARGET corematching::utf8proc)
    message(FATAL_ERROR "Component 'text' of corematching needs Oniguruma 6.9.8 and utf8proc 2.6 (Debian: pkg-config "
      "libonig-dev libutf8proc-dev). Install them, or leave the component out of COREMATCHING_COMPONENTS (now: "
      "${COREMATCHING_COMPONENTS}).")
  endif()
  corematching_component(text HEADERS text/*.hpp
    LINK corematching_io nlohmann_json::nlohmann_json corematching::oniguruma corematching::utf8proc)
endif()
# Layers, hooks and models, which name no backend: part of each component that has one.
if("model" IN_LIST wanted)
  corematching_component(model
    HEADERS backend/*.hpp backend/linked/*.hpp nn/*.hpp hooks/*.hpp model/*.hpp models.hpp
    LINK corematching_select corematching_io nlohmann_json::nlohmann_json)
endif()
if("eigen" IN_LIST wanted)
  corematching_need(eigen Eigen3 3.4 Eigen3::Eigen libeigen3-dev)
  corematching_component(eigen HEADERS backend/eigen/*.hpp backend/eigen/body.cpp eigen.hpp eigen_linked.hpp
    linked_models.hpp
    LINK corematching_model Eigen3::Eigen)
endif()
if("eigen_linked" IN_LIST wanted)
  include(${CMAKE_CURRENT_LIST_DIR}/eigen_linked.cmake)
endif()
if("cpu" IN_LIST wanted)
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_package(Threads REQUIRED)
  corematching_component(cpu HEADERS backend/cpu/*.hpp backend/cpu/body.cpp cpu.hpp cpu_linked.hpp
    linked_models.hpp
    LINK corematching_model Threads::Threads)
endif()
if("cpu_linked" IN_LIST wanted)
  include(${CMAKE_CURRENT_LIST_DIR}/cpu_linked.cmake)
endif()
if("cuda" IN_LIST wanted)
  corematching_component(cuda
    HEADERS core/*.cuh select/*.cuh backend/cuda/*.cuh backend/cuda/body.cu cuda.cuh
    cuda_linked.hpp linked_models.hpp
    LINK corematching_model CUDA::cudart CUDA::cublas)
  if("cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
    target_compile_features(corematching_cuda INTERFACE cuda_std_20)
  else()  # nvcc can and CMake does not know it: 3.25
    target_compile_options(corematching_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
  endif()
  # Kernels call constexpr functions of core/.
  target_compile_options(corematching_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)
  include(${CMAKE_CURRENT_LIST_DIR}/cuda_linked.cmake)
endif()
