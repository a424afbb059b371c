// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/weights.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/safetensors_writer.hpp"
#include "support/backend_data.hpp"
#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using support::error_text;
using support::expect_parts;
using support::real_matrix;

/// A checkpoint of three tensors "m" [rows, cols], "v" [cols] and "i" (integers), stored as one type.
class weight_files : public testing::TestWithParam<dtype> {
 protected:
  static constexpr index rows = 70, cols = 65;
  std::mt19937 random{21};
  real_matrix matrix_values = support::rounded(support::random_matrix(rows, cols, random), GetParam());
  real_matrix vector_values = support::rounded(support::random_matrix(1, cols, random), GetParam());
  support::temporary_directory directory;
  io::checkpoint from = write();
  B be = support::make_backend(1);

  io::checkpoint write() {
    visit_dtype(GetParam(), [&]<class T>() {
      if constexpr (!block_format<T>) {  // no element type of checkpoints
        std::vector<T> m, v;
        for (const double value : matrix_values.values) m.push_back(support::stored_as<T>(value));
        for (const double value : vector_values.values) v.push_back(support::stored_as<T>(value));
        const std::vector<std::int64_t> ids(6);
        const std::vector<io::named_tensor> tensors = {
            io::as_tensor("m", {rows, cols}, m), io::as_tensor("v", {cols}, v), io::as_tensor("i", {6}, ids)};
        io::write_safetensors(directory.path() / "model.safetensors", tensors);
      }
    });
    return io::checkpoint::open(directory.path());
  }

  static real_matrix read(const stored_view<>& view) {
    real_matrix result(view.rows, view.cols);
    visit_dtype(view.type, [&]<class T>() {
      if constexpr (!block_format<T>)
        for (index i = 0; i < view.rows; ++i)
          for (index j = 0; j < view.cols; ++j) result(i, j) = double{to_float(typed_row<T>(view, i)[j])};
    });
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(dtypes, weight_files, testing::Values(dtype::f32, dtype::f16, dtype::bf16),
                         [](const auto& of) { return std::string(name_of(of.param)); });

TEST_P(weight_files, give_matrices_in_place_in_their_own_type) {
  weight_reader<B> reader(be, from);
  const auto w = reader.matrix("m", {rows, cols});
  EXPECT_EQ(w.view.type, GetParam());
  EXPECT_EQ(read(w.view).values, matrix_values.values);
  EXPECT_EQ(w.view.data, from.at("m").bytes.data()) << "the mapping itself, no copy";
}

TEST_P(weight_files, give_transposed_matrices) {
  weight_reader<B> reader(be, from);
  const real_matrix turned = read(reader.transposed("m", rows, cols).view);
  ASSERT_EQ(turned.rows, cols);
  ASSERT_EQ(turned.cols, rows);
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < cols; ++j) ASSERT_EQ(turned(j, i), matrix_values(i, j));
}

TEST_P(weight_files, give_vectors_as_binary32) {
  weight_reader<B> reader(be, from);
  const auto v = reader.vector("v", cols);
  for (index j = 0; j < cols; ++j) EXPECT_EQ(double{v.view()[j]}, vector_values(0, j));
  EXPECT_EQ(reader.vector_if(false, "no such tensor", 3).size(), 0);
  EXPECT_EQ(reader.vector_if(true, "v", cols).size(), cols);
}

TEST_P(weight_files, stay_readable_when_checkpoint_and_file_are_gone) {
  weight<host_space> w;
  {
    const io::checkpoint brief = write();
    weight_reader<B> reader(be, brief);
    w = reader.matrix("m", {rows, cols});
  }
  std::filesystem::remove(directory.path() / "model.safetensors");
  EXPECT_EQ(read(w.view).values, matrix_values.values);
}

TEST_P(weight_files, report_the_bytes_read_so_far) {
  std::vector<std::uint64_t> reports;
  weight_reader<B> reader(be, from, [&](std::uint64_t done) { reports.push_back(done); });
  reader.matrix("m", {rows, cols});
  reader.vector("v", cols);
  reader.transposed("m", rows, cols);
  const auto size = std::uint64_t{bytes_of(GetParam(), 1)};
  EXPECT_EQ(reports, (std::vector<std::uint64_t>{rows * cols * size, (rows + 1) * cols * size,
                                                 (2 * rows + 1) * cols * size}));
}

TEST_P(weight_files, find_the_prefix_under_which_a_tensor_exists) {
  weight_reader<B> reader(be, from);
  EXPECT_EQ(reader.prefix({"other.", ""}, "m"), "");
  EXPECT_EQ(reader.prefix({"first.", "last."}, "m"), "last.") << "the error will name the last one";
}

TEST_P(weight_files, refuse_a_tensor_of_another_shape_and_name_both) {
  weight_reader<B> reader(be, from);
  const std::string file = (directory.path() / "model.safetensors").string();
  expect_parts(error_text([&] { reader.matrix("m", {cols, rows}); }), file, "\"m\"", "[70, 65]", "[65, 70]");
  expect_parts(error_text([&] { reader.transposed("m", cols, rows); }), file, "\"m\"", "[70, 65]",
               "[65, 70]");
  expect_parts(error_text([&] { reader.vector("v", 3); }), file, "\"v\"", "[65]", "[3]");
  expect_parts(error_text([&] { reader.vector("m", rows * cols); }), file, "\"m\"", "[70, 65]", "[4550]");
}

TEST_P(weight_files, refuse_a_missing_tensor_and_integers) {
  weight_reader<B> reader(be, from);
  expect_parts(error_text([&] {
                 reader.matrix("model.lost", {1, 1});
               }),
               directory.path().string(), "model.lost");
  expect_parts(error_text([&] { reader.vector("i", 6); }), "\"i\"", "I64", "F32, F16 or BF16");
}

TEST_P(weight_files, are_checked_without_being_read) {
  std::vector<std::string> problems;
  weight_reader<B> reader(be, from, problems);
  EXPECT_EQ(reader.matrix("m", {rows, cols}).view.data, nullptr);
  EXPECT_EQ(reader.transposed("m", rows, cols).view.data, nullptr);
  EXPECT_EQ(reader.values("v", {cols}), std::vector<float>(cols));
  EXPECT_TRUE(problems.empty());
  reader.matrix("m", {cols, rows});
  reader.vector("absent", 3);
  reader.vector("i", 6);
  ASSERT_EQ(problems.size(), 3u);
  expect_parts(problems[0], "\"m\"", "[70, 65]", "[65, 70]");
  expect_parts(problems[1], "absent");
  expect_parts(problems[2], "\"i\"");
}

TEST(weight_reader, copies_a_tensor_that_lies_misaligned_in_its_file) {
  // One byte in front of the floats, as other writers may lay them out.
  std::string header = R"({"m":{"dtype":"F32","shape":[2,2],"data_offsets":[1,17]},)"
                       R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  file += header + 'x';
  for (const float value : {1.0f, -2.0f, 3.5f, 0.25f}) {
    char bytes[4];
    std::memcpy(bytes, &value, 4);
    file.append(bytes, 4);
  }
  const support::temporary_directory directory;
  const auto from = io::checkpoint::open(directory.write("odd.safetensors", file));
  ASSERT_FALSE(from.at("m").is_aligned());
  B be = support::make_backend(1);
  weight_reader<B> reader(be, from);
  const auto w = reader.matrix("m", {2, 2});
  EXPECT_EQ(typed_row<float>(w.view, 1)[0], 3.5f);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(w.view.data) % alignof(float), 0u);
  EXPECT_EQ(typed_row<float>(reader.transposed("m", 2, 2).view, 1)[0], -2.0f);
  EXPECT_EQ(reader.values("m", {2, 2}), (std::vector<float>{1.0f, -2.0f, 3.5f, 0.25f}));
}

/// A checkpoint of one matrix "m" in binary32, whose file is already gone.
io::checkpoint one_matrix(const real_matrix& m) {
  return support::unlinked_checkpoint({{"m", m}});
}

/// The bytes of a matrix whose rows lie without gaps.
std::vector<std::byte> stored(const weight<host_space>& w) {
  return {w.view.data, w.view.data + stored_bytes(w.view)};
}

constexpr dtype all_types[] = {dtype::f32, dtype::bf16, dtype::f16, dtype::q8_0, dtype::q4_0};

TEST(weight_reader, converts_matrices_and_their_transposed) {
  std::mt19937 random{22};
  const real_matrix values = support::rounded(support::random_matrix(96, 160, random), dtype::f32);
  real_matrix turned(values.cols, values.rows);
  for (index i = 0; i < values.rows; ++i)
    for (index j = 0; j < values.cols; ++j) turned(j, i) = values(i, j);
  const io::checkpoint from = one_matrix(values);
  for (const int threads : {1, 3})
    for (const dtype type : all_types) {
      SCOPED_TRACE(name_of(type));
      B be = support::make_backend(threads);
      weight_reader<B> reader(be, from, {}, type);
      const auto m = reader.matrix("m", {96, 160}), t = reader.transposed("m", 96, 160);
      EXPECT_EQ(m.view.type, type);
      EXPECT_EQ(t.view.type, type);
      EXPECT_EQ(stored(m), stored(support::placed_weight(be, values, type)));
      EXPECT_EQ(stored(t), stored(support::placed_weight(be, turned, type)));
    }
}

TEST(weight_reader, keeps_what_looks_at_pictures_out_of_block_formats) {
  const io::checkpoint from = one_matrix(real_matrix(2, 33));
  B be = support::make_backend(1);
  for (const dtype type : weight_types) {
    weight_reader<B> reader(be, from, {}, type);
    EXPECT_EQ(reader.vision_matrix("m", {2, 33}).view.type, is_quantised(type) ? dtype::f32 : whole_of(type));
  }
}

TEST(weight_reader, refuses_rows_that_are_no_whole_blocks) {
  const io::checkpoint from = one_matrix(real_matrix(64, 33));
  B be = support::make_backend(2);
  weight_reader<B> reader(be, from, {}, dtype::q4_0);
  expect_parts(error_text([&] {
                 reader.matrix("m", {64, 33});
               }),
               "model.safetensors: tensor \"m\" [64, 33] as q4_0", "multiple of 32", "not 33");
  EXPECT_EQ(reader.transposed("m", 64, 33).view.cols, 64) << "rows of the transposed are long enough";
}

TEST(weight_reader, refuses_numbers_that_the_type_cannot_hold) {
  const auto refusal = [](double value, dtype type) {
    real_matrix m(3, 32);
    m(1, 7) = value;
    const io::checkpoint from = one_matrix(m);
    B be = support::make_backend(1);
    weight_reader<B> reader(be, from, {}, type);
    return error_text([&] { reader.transposed("m", 3, 32); });
  };
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL})
    expect_parts(refusal(value, dtype::f32), "\"m\" [3, 32] as f32", "no finite number");
  expect_parts(refusal(-65520, dtype::f16), "\"m\" [3, 32] as f16", "-65520", "beyond the 65504");
  expect_parts(refusal(3.4e38, dtype::bf16), "as bf16", "beyond");
}

TEST(weight_reader, refuses_parameters_that_are_no_finite_numbers) {
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    real_matrix m(1, 32);
    m(0, 31) = value;
    const io::checkpoint from = one_matrix(m);
    B be = support::make_backend(1);
    weight_reader<B> reader(be, from);
    expect_parts(error_text([&] {
                   reader.values("m", {1, 32});
                 }),
                 "model.safetensors: tensor \"m\" holds ", "no finite number");
  }
}

TEST(weight_reader, refuses_a_scale_that_overflows) {
  for (const auto& [type, value] : {std::pair{dtype::q8_0, 8.4e6}, std::pair{dtype::q4_0, -5.3e5}}) {
    real_matrix m(1, 32);
    m(0, 31) = value;
    const io::checkpoint from = one_matrix(m);
    B be = support::make_backend(1);
    weight_reader<B> reader(be, from, {}, type);
    expect_parts(error_text([&] { reader.matrix("m", {1, 32}); }), "\"m\" [1, 32]", name_of(type), "beyond");
  }
}

}  // namespace
}  // namespace corematching
