;; Products of a matrix and a vector, and the gates of a GRU. kernel.mjs makes bytes of this file.
;;
;; The numbers of a matrix stand in the order in which they are read: sixteen rows, column by column.
;; So memory is read as one stream, nothing is summed across the lanes of a vector, and what limits
;; large models is how fast memory comes. Rows are padded to sixteen, columns to two.
(module
  (import "chargen" "memory" (memory 1))

  ;; out = bias + matrix x, all float32. $bytes: of x, two columns at a time. Four vectors of sums were
  ;; measured to be the fastest: with eight, too few registers are left.
  (func (export "product") (param $matrix i32) (param $x i32) (param $bias i32) (param $out i32)
    (param $blocks i32) (param $bytes i32)
    (local $at i32) (local $end i32) (local $v v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $end (i32.add (local.get $x) (local.get $bytes)))
    (loop $block
      (local.set $a (v128.load (local.get $bias)))
      (local.set $b (v128.load offset=16 (local.get $bias)))
      (local.set $c (v128.load offset=32 (local.get $bias)))
      (local.set $d (v128.load offset=48 (local.get $bias)))
      (local.set $at (local.get $x))
      (loop $columns
        (local.set $v (v128.load32_splat (local.get $at)))
        (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $v) (v128.load (local.get $matrix)))))
        (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $v) (v128.load offset=16 (local.get $matrix)))))
        (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $v) (v128.load offset=32 (local.get $matrix)))))
        (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $v) (v128.load offset=48 (local.get $matrix)))))
        (local.set $v (v128.load32_splat offset=4 (local.get $at)))
        (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $v) (v128.load offset=64 (local.get $matrix)))))
        (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $v) (v128.load offset=80 (local.get $matrix)))))
        (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $v) (v128.load offset=96 (local.get $matrix)))))
        (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $v) (v128.load offset=112 (local.get $matrix)))))
        (local.set $matrix (i32.add (local.get $matrix) (i32.const 128)))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $columns (i32.lt_u (local.get $at) (local.get $end))))
      (v128.store (local.get $out) (local.get $a))
      (v128.store offset=16 (local.get $out) (local.get $b))
      (v128.store offset=32 (local.get $out) (local.get $c))
      (v128.store offset=48 (local.get $out) (local.get $d))
      (local.set $bias (i32.add (local.get $bias) (i32.const 64)))
      (local.set $out (i32.add (local.get $out) (i32.const 64)))
      (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
      (br_if $block (local.get $blocks))))

  ;; out = bias + scale (matrix x), where matrix is int8, x int16 and the sums int32, so exact; each row
  ;; has two columns side by side. $bytes: of x.
  (func (export "integer_product") (param $matrix i32) (param $x i32) (param $scale i32)
    (param $bias i32) (param $out i32) (param $blocks i32) (param $bytes i32)
    (local $at i32) (local $end i32) (local $v v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $end (i32.add (local.get $x) (local.get $bytes)))
    (loop $block
      (local.set $a (v128.const i32x4 0 0 0 0))
      (local.set $b (v128.const i32x4 0 0 0 0))
      (local.set $c (v128.const i32x4 0 0 0 0))
      (local.set $d (v128.const i32x4 0 0 0 0))
      (local.set $at (local.get $x))
      (loop $columns
        (local.set $v (v128.load32_splat (local.get $at)))
        (local.set $a (i32x4.add (local.get $a) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s (local.get $matrix)))))
        (local.set $b (i32x4.add (local.get $b) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s offset=8 (local.get $matrix)))))
        (local.set $c (i32x4.add (local.get $c) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s offset=16 (local.get $matrix)))))
        (local.set $d (i32x4.add (local.get $d) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s offset=24 (local.get $matrix)))))
        (local.set $matrix (i32.add (local.get $matrix) (i32.const 32)))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br_if $columns (i32.lt_u (local.get $at) (local.get $end))))
      (v128.store (local.get $out) (f32x4.add (v128.load (local.get $bias))
        (f32x4.mul (v128.load (local.get $scale)) (f32x4.convert_i32x4_s (local.get $a)))))
      (v128.store offset=16 (local.get $out) (f32x4.add (v128.load offset=16 (local.get $bias))
        (f32x4.mul (v128.load offset=16 (local.get $scale)) (f32x4.convert_i32x4_s (local.get $b)))))
      (v128.store offset=32 (local.get $out) (f32x4.add (v128.load offset=32 (local.get $bias))
        (f32x4.mul (v128.load offset=32 (local.get $scale)) (f32x4.convert_i32x4_s (local.get $c)))))
      (v128.store offset=48 (local.get $out) (f32x4.add (v128.load offset=48 (local.get $bias))
        (f32x4.mul (v128.load offset=48 (local.get $scale)) (f32x4.convert_i32x4_s (local.get $d)))))
      (local.set $scale (i32.add (local.get $scale) (i32.const 64)))
      (local.set $bias (i32.add (local.get $bias) (i32.const 64)))
      (local.set $out (i32.add (local.get $out) (i32.const 64)))
      (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
      (br_if $block (local.get $blocks))))

  ;; The next state of a layer: out = new + update (state - new), where new = tanh(input + reset
  ;; recurrent). $input and $recurrent hold update, reset and new, each of $bytes; four are made at a
  ;; time, so that up to three more are written than there are.
  (func (export "pass_gates") (param $state i32) (param $input i32) (param $recurrent i32)
    (param $out i32) (param $bytes i32)
    (local $end i32) (local $two i32) (local $new v128)
    (local.set $two (i32.shl (local.get $bytes) (i32.const 1)))
    (local.set $end (i32.add (local.get $out) (local.get $bytes)))
    (loop $four
      (local.set $new (call $tanh_of_four (f32x4.add
        (v128.load (i32.add (local.get $input) (local.get $two)))
        (f32x4.mul
          (v128.load (i32.add (local.get $recurrent) (local.get $two)))
          (call $sigmoid_of_four (f32x4.add
            (v128.load (i32.add (local.get $input) (local.get $bytes)))
            (v128.load (i32.add (local.get $recurrent) (local.get $bytes)))))))))
      (v128.store (local.get $out) (f32x4.add (local.get $new) (f32x4.mul
        (call $sigmoid_of_four (f32x4.add (v128.load (local.get $input)) (v128.load (local.get $recurrent))))
        (f32x4.sub (v128.load (local.get $state)) (local.get $new)))))
      (local.set $state (i32.add (local.get $state) (i32.const 16)))
      (local.set $input (i32.add (local.get $input) (i32.const 16)))
      (local.set $recurrent (i32.add (local.get $recurrent) (i32.const 16)))
      (local.set $out (i32.add (local.get $out) (i32.const 16)))
      (br_if $four (i32.lt_u (local.get $out) (local.get $end)))))

  ;; 1 / (1 + exp(-x))
  (func $sigmoid_of_four (param $x v128) (result v128)
    (f32x4.div (v128.const f32x4 1 1 1 1)
      (f32x4.add (v128.const f32x4 1 1 1 1) (call $exp (f32x4.neg (local.get $x))))))

  ;; 1 - 2 / (1 + exp(2 x))
  (func $tanh_of_four (param $x v128) (result v128)
    (f32x4.sub (v128.const f32x4 1 1 1 1)
      (f32x4.div (v128.const f32x4 2 2 2 2)
        (f32x4.add (v128.const f32x4 1 1 1 1) (call $exp (f32x4.add (local.get $x) (local.get $x)))))))

  ;; exp(x) as in expf of Moshier's Cephes library: 2^n exp(r), where r is at most half of log 2. The same
  ;; in every browser, which the exp of JavaScript is not.
  (func $exp (param $x v128) (result v128) (local $n v128) (local $r v128)
    (local.set $x (f32x4.max (v128.const f32x4 -87 -87 -87 -87)
      (f32x4.min (v128.const f32x4 87 87 87 87) (local.get $x))))
    (local.set $n (f32x4.nearest (f32x4.mul (local.get $x)
      (v128.const f32x4 1.44269504 1.44269504 1.44269504 1.44269504))))
    (local.set $r (f32x4.sub
      (f32x4.sub (local.get $x) (f32x4.mul (local.get $n) (v128.const f32x4 0.693359375 0.693359375 0.693359375 0.693359375)))
      (f32x4.mul (local.get $n) (v128.const f32x4 -2.12194440e-4 -2.12194440e-4 -2.12194440e-4 -2.12194440e-4))))
    (local.set $x (v128.const f32x4 1.9875691500e-4 1.9875691500e-4 1.9875691500e-4 1.9875691500e-4))
    (local.set $x (f32x4.add (f32x4.mul (local.get $x) (local.get $r)) (v128.const f32x4 1.3981999507e-3 1.3981999507e-3 1.3981999507e-3 1.3981999507e-3)))
    (local.set $x (f32x4.add (f32x4.mul (local.get $x) (local.get $r)) (v128.const f32x4 8.3334519073e-3 8.3334519073e-3 8.3334519073e-3 8.3334519073e-3)))
    (local.set $x (f32x4.add (f32x4.mul (local.get $x) (local.get $r)) (v128.const f32x4 4.1665795894e-2 4.1665795894e-2 4.1665795894e-2 4.1665795894e-2)))
    (local.set $x (f32x4.add (f32x4.mul (local.get $x) (local.get $r)) (v128.const f32x4 1.6666665459e-1 1.6666665459e-1 1.6666665459e-1 1.6666665459e-1)))
    (local.set $x (f32x4.add (f32x4.mul (local.get $x) (local.get $r)) (v128.const f32x4 5.0000001201e-1 5.0000001201e-1 5.0000001201e-1 5.0000001201e-1)))
    (local.set $x (f32x4.add (f32x4.mul (f32x4.mul (local.get $r) (local.get $r)) (local.get $x))
      (f32x4.add (local.get $r) (v128.const f32x4 1 1 1 1))))
    (f32x4.mul (local.get $x) (i32x4.shl
      (i32x4.add (i32x4.trunc_sat_f32x4_s (local.get $n)) (v128.const i32x4 127 127 127 127)) (i32.const 23))))

  ;; The same for int8, where a state that is rounded to another whole number leads to another text: the
  ;; bits that ONNX Runtime has on processors with fused operations. The lanes are float64 that are rounded
  ;; to float32 after each operation: so an operation gives what float32 gives, and a product and a sum
  ;; together what a fused one gives. Two are made at a time.
  (func (export "pass_gates_alike") (param $state i32) (param $input i32) (param $recurrent i32)
    (param $out i32) (param $bytes i32)
    (local $end i32) (local $two i32) (local $update v128) (local $new v128)
    (local.set $two (i32.shl (local.get $bytes) (i32.const 1)))
    (local.set $end (i32.add (local.get $out) (local.get $bytes)))
    (loop $next
      (local.set $update (call $sigmoid (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $input))) (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $recurrent))))))))
      (local.set $new (call $sigmoid (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $input) (local.get $bytes)))) (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $recurrent) (local.get $bytes)))))))))
      (local.set $new (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.mul (local.get $new) (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $recurrent) (local.get $two))))))))
      (local.set $new (call $tanh (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (local.get $new) (f64x2.promote_low_f32x4 (v128.load64_zero (i32.add (local.get $input) (local.get $two)))))))))
      (local.set $update (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.mul (local.get $update) (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.sub (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $state))) (local.get $new))))))))
      (v128.store64_lane 0 (local.get $out) (f32x4.demote_f64x2_zero (f64x2.add (local.get $new) (local.get $update))))
      (local.set $state (i32.add (local.get $state) (i32.const 8)))
      (local.set $input (i32.add (local.get $input) (i32.const 8)))
      (local.set $recurrent (i32.add (local.get $recurrent) (i32.const 8)))
      (local.set $out (i32.add (local.get $out) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $out) (local.get $end)))))

  ;; 1 / (1 + exp(-x)) and tanh(x) as quotients of polynomials, which ONNX Runtime (MLAS) has from Eigen:
  ;; the same coefficients, written out as float32 holds them, in the same order. $s is x squared.
  (func $sigmoid (param $x v128) (result v128) (local $s v128) (local $p v128) (local $q v128)
    (local.set $x (f64x2.max (v128.const f64x2 -18 -18) (f64x2.min (v128.const f64x2 18 18) (local.get $x))))
    (local.set $s (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.mul (local.get $x) (local.get $x)))))
    (local.set $p (v128.const f64x2 4.370310016654777e-11 4.370310016654777e-11))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 1.156273228275495e-07 1.156273228275495e-07)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 6.085748827899806e-05 6.085748827899806e-05)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 0.008513770997524261 0.008513770997524261)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 0.24828794598579407 0.24828794598579407)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.mul (local.get $p) (local.get $x)))))
    (local.set $q (v128.const f64x2 6.102473669618302e-13 6.102473669618302e-13))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 5.761021437677982e-09 5.761021437677982e-09)))))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 6.291068075370276e-06 6.291068075370276e-06)))))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 0.0017019881634041667 0.0017019881634041667)))))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 0.1168176531791687 0.1168176531791687)))))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 0.9931519031524658 0.9931519031524658)))))
    (f64x2.min (v128.const f64x2 1 1) (f64x2.max (v128.const f64x2 0 0) (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (v128.const f64x2 0.5 0.5) (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.div (local.get $p) (local.get $q))))))))))

  (func $tanh (param $x v128) (result v128) (local $s v128) (local $p v128) (local $q v128)
    (local.set $x (f64x2.max (v128.const f64x2 -9 -9) (f64x2.min (v128.const f64x2 9 9) (local.get $x))))
    (local.set $s (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.mul (local.get $x) (local.get $x)))))
    (local.set $p (v128.const f64x2 -2.7607683663038313e-16 -2.7607683663038313e-16))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 2.0001879384549948e-13 2.0001879384549948e-13)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 -8.604671836165423e-11 -8.604671836165423e-11)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 5.122297253024044e-08 5.122297253024044e-08)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 1.4857223504805006e-05 1.4857223504805006e-05)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 0.0006372619536705315 0.0006372619536705315)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $p) (local.get $s)) (v128.const f64x2 0.004893524572253227 0.004893524572253227)))))
    (local.set $p (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.mul (local.get $p) (local.get $x)))))
    (local.set $q (v128.const f64x2 1.1982583600911312e-06 1.1982583600911312e-06))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 0.00011853470641653985 0.00011853470641653985)))))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 0.0022684347350150347 0.0022684347350150347)))))
    (local.set $q (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.add (f64x2.mul (local.get $q) (local.get $s)) (v128.const f64x2 0.0048935250379145145 0.0048935250379145145)))))
    (f64x2.promote_low_f32x4 (f32x4.demote_f64x2_zero (f64x2.div (local.get $p) (local.get $q))))))
