// SPDX-License-Identifier: Apache-2.0
// One CLIP encoder layer: x += attention(norm(x)); x += fc2(act(fc1(norm(x)))), everything with bias, every
// token seeing every other.
#pragma once

#include <array>
#include <utility>

#include "corematching/backend/fused.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// A matrix [out, in] with its bias [out].
template <backend B>
struct linear {
  weight<typename B::space> matrix;
  parameters<B> bias;

  void operator()(B& be, matrix_view<float, typename B::space> y,
                  matrix_view<const float, typename B::space> x) const {
    be.matmul(y, x, matrix.view, bias.view());
  }

  /// The product for `y`, as one of several of the same rows.
  projection<typename B::space> of(matrix_view<float, typename B::space> y) const {
    return {y, matrix.view, bias.view()};
  }

  /// y += x W^T + bias; `room`, shaped like y, may be overwritten.
  void add_to(B& be, matrix_view<float, typename B::space> y, matrix_view<const float, typename B::space> x,
              matrix_view<float, typename B::space> room) const {
    detail::add_matmul(be, y, x, matrix.view, bias.view(), room);
  }
};

/// Scale and shift of a layer normalisation, [D] each.
template <backend B>
struct layer_norm {
  parameters<B> weight, bias;

  void operator()(B& be, matrix_view<float, typename B::space> y,
                  matrix_view<const float, typename B::space> x, float eps) const {
    be.layer_norm(y, x, weight.view(), bias.view(), eps);
  }
};

template <backend B>
struct encoder_weights {
  layer_norm<B> attention_norm, mlp_norm;
  linear<B> query, key, value, output;  // [D, D]
  linear<B> fc1, fc2;                   // [M, D], [D, M]
};

/// Intermediate activations of an encoder layer.
template <backend B>
struct encoder_scratch {
  encoder_scratch(B& be, index tokens, index hidden, index mlp)
      : normed(be, tokens, hidden),
        q(be, tokens, hidden),
        k(be, tokens, hidden),
        v(be, tokens, hidden),
        attended(be, tokens, hidden),
        inner(be, tokens, mlp) {}
  matrix<B> normed, q, k, v, attended, inner;
};

template <backend B>
class encoder_layer {
 public:
  encoder_layer(encoder_weights<B> weights, attention_shape shape, activation act, float eps)
      : weights_(std::move(weights)), shape_(shape), act_(act), eps_(eps) {}

  /// Runs the layer on x [T, D], in place.
  void forward(B& be, encoder_scratch<B>& s, matrix_view<float, typename B::space> x) const {
    const auto& w = weights_;
    w.attention_norm(be, s.normed.view(), x, eps_);
    const std::array<projection<typename B::space>, 3> projections = {
        {w.query.of(s.q.view()), w.key.of(s.k.view()), w.value.of(s.v.view())}};
    detail::project(be, projections, s.normed.view());
    be.attention(s.attended.view(), s.q.view(), s.k.view(), s.v.view(), shape_);
    w.output.add_to(be, x, s.attended.view(), s.normed.view());

    w.mlp_norm(be, s.normed.view(), x, eps_);
    w.fc1(be, s.inner.view(), s.normed.view());
    be.activate(s.inner.view(), act_);
    w.fc2.add_to(be, x, s.inner.view(), s.normed.view());
  }

 private:
  encoder_weights<B> weights_;
  attention_shape shape_;
  activation act_;
  float eps_;
};

}  // namespace corematching
